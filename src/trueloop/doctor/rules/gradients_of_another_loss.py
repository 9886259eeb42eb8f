"""An optimizer steps on gradients that another player's loss left in its parameters.

Sees: a backward whose gradients one optimizer has stepped on leaves gradients in the parameters of a second one as
well; the second one's own backward adds to them, and it steps on the sum. Three times in a row (a guess). It speaks
where the second one's parameters work on what the first one's made (a discriminator judging a generator, an adversary
reading an encoder), or where both losses go through both players; a shared trunk that learns of two heads' losses is
left alone.

Why it matters: the two losses of a game pull in opposite directions. A discriminator that also steps on the generator's
loss learns to be fooled.

Usual causes: gradients of all players are cleared once at the head of the iteration, and not again before the second
backward; the generator's output is not detached for the discriminator's loss.

Fix: call each optimizer's ``zero_grad()`` right before the backward of its own loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from trueloop.doctor.facts import BackwardBegun, Paused, Stepped, Stepping
from trueloop.doctor.findings import Finding, Place
from trueloop.doctor.rule import Rule
from trueloop.doctor.source import events as read
from trueloop.doctor.source import values
from trueloop.doctor.source.fixes import Checked
from trueloop.doctor.source.mending import line_before, said
from trueloop.doctor.source.provenance import ancestors, clears, held, touches, trains
from trueloop.doctor.source.ritual import is_step, optimizers
from trueloop.doctor.source.ways import paths

if TYPE_CHECKING:
    from trueloop.doctor.graph import Graph, Node
    from trueloop.doctor.seen import Accumulation, OptimizerSeen
    from trueloop.doctor.source.program import Program
    from trueloop.doctor.trace import Trace

STEPS = 3
REMEMBERED = 512
LEAVES = 4  # parameters whose use in the graph is followed


class GradientsOfAnotherLoss(Rule):
    """Remembers which optimizer stepped on which backward first."""

    name = "gradients-of-another-loss"
    code = 121
    level = "error"
    certainty = "certain"
    seen_by = ("run", "source")

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self._used: dict[
            int, tuple[OptimizerSeen, int]
        ] = {}  # backward -> who stepped on it first, and at which backward
        self._suspects: dict[Place | None, tuple[OptimizerSeen, OptimizerSeen]] = {}
        self._judges: dict[tuple[Place | None, int, int], bool] = {}  # whether the one judges the other
        self._counts: dict[int, int] = {}
        self._right = 0

    def backward_begun(self, fact: BackwardBegun) -> None:
        suspects = self._suspects.get(fact.place)
        if suspects is None:
            return
        one, other = suspects
        key = (fact.place, one.number, other.number)
        if key not in self._judges:
            self._judges[key] = _judges(fact.graph, one, other)

    def stepping(self, fact: Stepping) -> Iterator[Finding]:
        if len(self.trace.optimizers) < 2 or fact.has_closure or not fact.accumulated:
            return
        seen, number = fact.optimizer, fact.optimizer.number
        left = self._left_over(fact)
        if left is None:
            self._right += 1
            self._counts[number] = 0
            return
        first, last, other = left
        self._suspects[first.place] = (seen, other)
        judges = self._judges.get((first.place, number, other.number), False)
        both = any(one.backward == last.backward for one in other.accumulated)
        self._counts[number] = self._counts.get(number, 0) + 1 if judges or both else 0
        if self._counts[number] == STEPS:
            yield self.finding(
                f"{seen.kind} number {number + 1} steps on its own gradients and on those that the loss of "
                f"{other.kind} number {other.number + 1} left in its parameters",
                f"in {STEPS} of its steps, a backward that the other had stepped on had reached its parameters, "
                "they were not cleared, and its own backward added to them",
                place=last.place,
                related=[
                    (first.place, "the other loss's backward, which leaves gradients here, too"),
                    (fact.place, "the step on the sum"),
                    (seen.zeroed_place, "where they are cleared"),
                ],
            )

    def stepped(self, fact: Stepped) -> None:
        if len(self.trace.optimizers) < 2:
            return
        for one in fact.accumulated:
            self._used.setdefault(one.backward, (fact.optimizer, self.trace.backwards))
        while len(self._used) > REMEMBERED:
            self._used.pop(next(iter(self._used)))

    def paused(self, fact: Paused) -> None:
        self._counts.clear()

    def passed(self) -> str | None:
        return (
            f"{self._right} steps of several optimizers used the gradients of their own loss" if self._right else None
        )

    def _left_over(self, fact: Stepping) -> tuple[Accumulation, Accumulation, OptimizerSeen] | None:
        """The foreign backward in the sum that is stepped on, the optimizer's own, and whose the foreign one was."""
        accumulated = fact.accumulated
        begin = max((index for index, one in enumerate(accumulated) if one.clean), default=-1)
        in_sum = accumulated[begin:] if begin >= 0 else ()
        if len(in_sum) < 2:
            return None
        last = in_sum[-1]
        if last.backward in self._used:
            return None
        for one in in_sum[:-1]:
            other, at = self._used.get(one.backward, (fact.optimizer, 0))
            if other is not fact.optimizer and at <= last.backward:
                return one, last, other
        return None


def _judges(graph: Graph, one: OptimizerSeen, other: OptimizerSeen) -> bool:
    """Whether parameters of the one work on what parameters of the other made (a discriminator on a generator's)."""
    ones, others = ({id(p) for p in seen.parameters()} for seen in (one, other))
    if ones & others:
        return False
    users: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        for below in node.inputs:
            if below is not None:
                users.setdefault(below, []).append(node)
    leaves = [node for node in graph.nodes if id(node.parameter) in ones]
    return any(_holds(user, others) for leaf in leaves[:LEAVES] for user in _operations(leaf, users))


def _operations(leaf: Node, users: Mapping[Node, list[Node]]) -> Iterator[Node]:
    """The operations that put a parameter to use on something else (not its own views, not a penalty's scalar)."""
    rest = list(users.get(leaf, ()))
    for node in rest:
        if len([below for below in node.inputs if below is not None]) == 1:
            rest.extend(user for user in users.get(node, ()) if user not in rest)
        elif node.shape:
            yield node


def _holds(top: Node, parameters: set[int]) -> bool:
    rest, met = [top], {top}
    for node in rest:
        if id(node.parameter) in parameters:
            return True
        below = [one for one in node.inputs if one is not None and one not in met]
        met.update(below)
        rest.extend(dict.fromkeys(below))
    return False


def in_source(program: Program) -> Iterator[Checked]:
    """On every way, a step uses what another player's backward left in its parameters, besides its own loss's."""
    for run in program.runs:
        players = [one for one in optimizers(run) if isinstance(one, values.Object)]
        if not run.complete or len(players) < 2 or len(players) < len(optimizers(run)) or _freezes(program):
            continue
        ways = list(paths(run, read.Backward, read.Stepped, read.Zeroed, read.Escaped, read.GradientsUsed))
        for player in players:
            stepping = [way for way in ways if any(is_step(event, player) for event in way)]
            found = [_left_over(way, player, players) for way in stepping]
            if not found or found[0] is None or None in found:
                continue
            left, own, step = found[0]
            finding = program.finding(
                GradientsOfAnotherLoss,
                f"`{said(step)}.step()` also uses the gradients of another player's loss",
                "that loss went through these parameters too, and nothing clears them before the second backward",
                at=step,
                related=[(left, "leaves gradients here too"), (own, "the backward of its own loss adds to them")],
            )
            clear = f"{said(step)}.zero_grad()"
            yield Checked(finding, line_before(program, own, clear, "clear them before its own backward"))


def _freezes(program: Program) -> bool:
    """Whether parameters may be kept out of a loss: then backward leaves nothing in them."""
    return any(word in program.unit.code for word in ("requires_grad", "toggle_optimizer"))


def _left_over(
    way: list[read.Event], player: values.Object, players: list[values.Object]
) -> tuple[read.Backward, read.Backward, read.Stepped] | None:
    """The first step on another's gradients, if all steps but the first of the way are such; None if it is not sure."""
    pending: list[read.Backward] = []
    used: dict[int, values.Object] = {}  # a backward -> another player that stepped on it
    found = None
    cleared = right = False
    for event in way:
        if isinstance(event, read.Backward):
            reached = trains(player, event.loss)
            if reached is None:
                return None
            if reached:
                pending.append(event)
        elif isinstance(event, read.Zeroed):
            answer = clears(event.target, player)
            cleared = cleared or answer is True
            if answer is not False:
                pending.clear()
        elif isinstance(event, read.Escaped):
            if touches(event.values, player):
                return None
        elif isinstance(event, read.GradientsUsed):
            return None
        elif isinstance(event, read.Stepped) and event.target is not player:
            others = [one for one in players if one is event.target]
            used |= {id(one): other for one in pending for other in others if trains(other, one.loss)}
        elif isinstance(event, read.Stepped):
            left = next(
                (one for one in pending if id(one) in used and _works_on(one.loss, used[id(one)], player)), None
            )
            own = next((one for one in reversed(pending) if id(one) not in used), None)
            if left is not None and own is not None and not event.closure:
                found = found or (left, own, event)
                right = False
            elif found is not None:
                right = True
    return found if cleared and not right else None


def _works_on(loss: values.Value, maker: values.Object, judge: values.Object) -> bool:
    """Whether the second one's layers work on what the first one's made."""
    makers, judges = held(maker.option("params", 0))[0], held(judge.option("params", 0))[0]
    if makers & judges:
        return False
    for one in ancestors(loss, graph=True):
        if isinstance(one, values.Tensor) and id(one.layer) in judges:
            below = (other for given in one.inputs for other in ancestors(given, graph=True))
            if any(isinstance(other, values.Tensor) and id(other.layer) in makers for other in below):
                return True
    return False


FIRES = {
    "cleared once at the head": """
        G = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
        D = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
        og, od = torch.optim.Adam(G.parameters(), 1e-3), torch.optim.Adam(D.parameters(), 1e-3)
        bce = nn.BCEWithLogitsLoss()
        for i in range(20):
            og.zero_grad()
            od.zero_grad()
            fake = G(torch.randn(16, 2))
            bce(D(fake), torch.ones(16, 1)).backward()
            og.step()
            d_loss = bce(D(torch.randn(16, 2) + 2), torch.ones(16, 1)) + bce(D(fake.detach()), torch.zeros(16, 1))
            d_loss.backward()
            od.step()
    """,
    "fakes not detached": """
        G, D = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
        players = [torch.optim.RMSprop(G.parameters(), 1e-3), torch.optim.RMSprop(D.parameters(), 1e-3)]
        for i in range(20):
            for player in players:
                player.zero_grad()
            critic_loss = D(G(torch.randn(16, 2))).mean() - D(torch.randn(16, 2)).mean()
            critic_loss.backward()
            players[1].step()
            actor_loss = -D(G(torch.randn(16, 2))).mean()
            actor_loss.backward()
            players[0].step()
    """,
}

SILENT = {
    "each clears before its own backward": """
        G = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
        D = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
        og, od = torch.optim.Adam(G.parameters(), 1e-3), torch.optim.Adam(D.parameters(), 1e-3)
        bce = nn.BCEWithLogitsLoss()
        for i in range(20):
            fake = G(torch.randn(16, 2))
            og.zero_grad()
            bce(D(fake), torch.ones(16, 1)).backward()
            og.step()
            od.zero_grad()
            bce(D(torch.randn(16, 2) + 2), torch.ones(16, 1)).backward()
            bce(D(fake.detach()), torch.zeros(16, 1)).backward()
            od.step()
    """,
    "a shared trunk learns of both heads": """
        trunk, a, b = nn.Linear(4, 8), nn.Linear(8, 1), nn.Linear(8, 1)
        ot, oa, ob = (torch.optim.SGD(m.parameters(), 0.02) for m in (trunk, a, b))
        for i in range(20):
            for opt in (ot, oa, ob):
                opt.zero_grad()
            x = torch.randn(16, 4)
            h = torch.tanh(trunk(x))
            F.mse_loss(a(h), x[:, :1]).backward(retain_graph=True)
            oa.step()
            F.mse_loss(b(h), x[:, 1:2]).backward()
            ot.step()
            ob.step()
    """,
    "two losses, then two steps": """
        enc, dec = nn.Linear(4, 2), nn.Linear(2, 4)
        oe, od = torch.optim.Adam(enc.parameters(), 1e-2), torch.optim.Adam(dec.parameters(), 1e-2)
        for i in range(20):
            oe.zero_grad()
            od.zero_grad()
            x = torch.randn(16, 4)
            z = enc(x)
            F.mse_loss(dec(z), x).backward(retain_graph=True)
            (0.1 * z.square().mean()).backward()
            oe.step()
            od.step()
    """,
}

READ_FIRES = {
    "all are cleared once, at the head": """
        import torch
        from torch import nn
        G, D = nn.Linear(2, 2), nn.Linear(2, 1)
        og, od = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
        bce = nn.BCEWithLogitsLoss()
        for real in loader:
            og.zero_grad()
            od.zero_grad()
            fake = G(torch.randn(16, 2))
            bce(D(fake), torch.ones(16, 1)).backward()
            og.step()
            (bce(D(real), torch.ones(16, 1)) + bce(D(fake.detach()), torch.zeros(16, 1))).backward()
            od.step()
    """,
    "a trainer that clears the networks": """
        import torch
        from torch import nn
        class Game:
            def __init__(self):
                self.gen = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
                self.critic = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
                self.g_opt = torch.optim.Adam(self.gen.parameters())
                self.c_opt = torch.optim.Adam(self.critic.parameters())
            def turn(self, real):
                self.gen.zero_grad()
                self.critic.zero_grad()
                fake = self.gen(torch.randn(16, 2))
                g_loss = -self.critic(fake).mean()
                g_loss.backward()
                self.g_opt.step()
                c_loss = self.critic(fake.detach()).mean() - self.critic(real).mean()
                c_loss.backward()
                self.c_opt.step()
        game = Game()
        for real in loader:
            game.turn(real)
    """,
    "an actor's loss goes through the critic, whose turn comes first": """
        import torch
        from torch import nn
        actor, critic = nn.Linear(3, 1), nn.Linear(4, 1)
        a_opt = torch.optim.Adam(actor.parameters())
        c_opt = torch.optim.Adam(critic.parameters())
        for s, a, r in memory:
            nn.functional.mse_loss(critic(torch.cat([s, a], 1)), r).backward()
            c_opt.step()
            c_opt.zero_grad()
            a_opt.zero_grad()
            (-critic(torch.cat([s, actor(s)], 1)).mean()).backward()
            a_opt.step()
    """,
}

READ_SILENT = {
    "cleared before each backward": """
        import torch
        from torch import nn
        G, D = nn.Linear(2, 2), nn.Linear(2, 1)
        og, od = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
        bce = nn.BCEWithLogitsLoss()
        for real in loader:
            fake = G(torch.randn(16, 2))
            og.zero_grad()
            bce(D(fake), torch.ones(16, 1)).backward()
            og.step()
            od.zero_grad()
            (bce(D(real), torch.ones(16, 1)) + bce(D(fake.detach()), torch.zeros(16, 1))).backward()
            od.step()
    """,
    "the discriminator first": """
        import torch
        from torch import nn
        G, D = nn.Linear(2, 2), nn.Linear(2, 1)
        og, od = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
        bce = nn.BCEWithLogitsLoss()
        for real in loader:
            og.zero_grad()
            od.zero_grad()
            fake = G(torch.randn(16, 2))
            (bce(D(real), torch.ones(16, 1)) + bce(D(fake.detach()), torch.zeros(16, 1))).backward()
            od.step()
            bce(D(fake), torch.ones(16, 1)).backward()
            og.step()
    """,
    "one loss for two optimizers, and a trunk that learns of two heads": """
        import torch
        from torch import nn
        trunk, a, b = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 3)
        ot, oa, ob = (torch.optim.SGD(one.parameters(), lr=0.1) for one in (trunk, a, b))
        for x, y, z in loader:
            for opt in (ot, oa, ob):
                opt.zero_grad()
            nn.functional.cross_entropy(a(trunk(x)), y).backward()
            oa.step()
            nn.functional.cross_entropy(b(trunk(x)), z).backward()
            ob.step()
            ot.step()
    """,
    "the judge is frozen meanwhile": """
        import torch
        from torch import nn
        G, D = nn.Linear(2, 2), nn.Linear(2, 1)
        og, od = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
        bce = nn.BCEWithLogitsLoss()
        for real in loader:
            og.zero_grad()
            od.zero_grad()
            fake = G(torch.randn(16, 2))
            D.requires_grad_(False)
            bce(D(fake), torch.ones(16, 1)).backward()
            og.step()
            D.requires_grad_(True)
            (bce(D(real), torch.ones(16, 1)) + bce(D(fake.detach()), torch.zeros(16, 1))).backward()
            od.step()
    """,
}
