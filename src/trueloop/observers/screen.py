"""Where a progress display goes: a terminal, a notebook, or a file of plain lines."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from io import StringIO
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

_LINES_IN_A_NOTEBOOK = 200


class Screen(ABC):
    """Takes lines that stay, and, where it is live, a drawing below them that changes.

    A live one shows lines together with the next drawing, or when it is closed: an epoch may take a millisecond.
    """

    live: bool
    """Whether drawings are shown at all; who draws can spare the trouble otherwise."""

    @abstractmethod
    def line(self, text: str) -> None:
        """Show a line that stays."""

    @abstractmethod
    def draw(self, drawing: RenderableType) -> None:
        """Show a drawing in place of the one before."""

    @abstractmethod
    def close(self) -> None:
        """Take the drawing away; the lines stay."""


def choose_screen(console: Console) -> Screen:
    """The screen that fits the console: pipes, files and dumb terminals get lines only.

    Example:
        >>> choose_screen(Console(file=StringIO())).live
        False
    """
    if console.is_jupyter:
        from IPython.display import display

        return Notebook(display)
    return Terminal(console) if console.is_interactive else Lines(console)


class Lines(Screen):
    """Plain text, one line after the other, however long."""

    live = False

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, text: str) -> None:
        try:
            self._console.file.write(text + "\n")  # rich would take 200 µs to lay it out, and break it at 80 characters
            self._console.file.flush()
        except BrokenPipeError:  # `| head` has seen enough; the training goes on
            self._console.file = open(os.devnull, "w")  # noqa: SIM115  # until the process ends

    def draw(self, drawing: RenderableType) -> None:
        pass

    def close(self) -> None:
        pass


class Terminal(Screen):
    """A drawing at the terminal's foot, lines above it; what the user prints goes above it too.

    Without rich's refresh thread, which costs 1 % of a core by itself: it is redrawn when asked, and only then.
    """

    live = True

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._waiting: list[str] = []

    def line(self, text: str) -> None:
        self._waiting.append(text)

    def draw(self, drawing: RenderableType) -> None:
        self._print()
        if not self._live.is_started:
            self._live.start()
        self._live.update(drawing, refresh=True)

    def close(self) -> None:
        self._live.stop()
        self._print()

    def _print(self) -> None:
        if self._waiting:
            lines = "\n".join(self._waiting)
            self._waiting.clear()
            self._console.print(lines, soft_wrap=True, markup=False, highlight=False, emoji=False)


class Notebook(Screen):
    """One output of a cell, updated in place; needs no widgets, so that it works in Colab and VS Code too.

    Args:
        display: ``IPython.display.display``.
    """

    live = True

    def __init__(self, display: Callable[..., Any]) -> None:
        self._display = display
        self._handle: Any = None
        self._kept: list[str] = []

    def line(self, text: str) -> None:
        self._kept.append(text)

    def draw(self, drawing: RenderableType) -> None:
        self._show(drawing)

    def close(self) -> None:
        self._show(None)

    def _show(self, drawing: RenderableType | None) -> None:
        page = Console(file=StringIO(), width=100, force_jupyter=False, force_terminal=False)
        with page.capture() as text:
            kept = self._kept[-_LINES_IN_A_NOTEBOOK:]  # all of it is sent anew at each drawing
            page.print(Group(*map(Text, kept), *([drawing] if drawing is not None else [])))
        bundle = {"text/plain": text.get().rstrip("\n")}
        if self._handle is None:
            self._handle = self._display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)
