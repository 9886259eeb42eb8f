from h import *
from torch.nn import functional as F
from torch.optim import lr_scheduler as S
import os, json, torchmetrics, signal
sg=lambda:tl.optim.sgd(lr=.1)
q=dict(epochs=2,batch_size=16,progress=False,seed=0)
class Bad(nn.Module): pass
with case("plateau unknown metric"):
    m=mk();o=torch.optim.SGD(m.parameters(),.1); tl.Trainer(m,nn.CrossEntropyLoss(),o,schedule=tl.schedules.stepped(S.ReduceLROnPlateau(o),every="evaluation",metric="acuracy"),metrics={"accuracy":lambda o,t:0.}).fit((X,Y),(X,Y),**q)
with case("plateau without val"):
    m=mk();o=torch.optim.SGD(m.parameters(),.1); print(tl.Trainer(m,nn.CrossEntropyLoss(),o,schedule=S.ReduceLROnPlateau(o)).plan((X,Y),epochs=1,batch_size=10).notes)
with case("stepped plateau every=epoch"):
    m=mk();o=torch.optim.SGD(m.parameters(),.1); tl.Trainer(m,nn.CrossEntropyLoss(),o,schedule=tl.schedules.stepped(S.ReduceLROnPlateau(o),every="epoch")).fit((X,Y),(X,Y),**q)
with case("stepped every=foo"):
    tl.schedules.stepped(S.ReduceLROnPlateau(o),every="foo")
with case("EarlyStop unknown metric"):
    print(tl.Trainer(mk(),nn.CrossEntropyLoss(),sg(),metrics={"accuracy":lambda o,t:0.}).fit((X,Y),(X,Y),observers=[tl.observers.EarlyStop("acc",mode="max")],**q).reason)
with case("EarlyStop no val"):
    print(tl.Trainer(mk(),nn.CrossEntropyLoss(),sg()).fit((X,Y),observers=[tl.observers.EarlyStop()],**q).reason)
with case("EarlyStop reuse in second fit"):
    es=tl.observers.EarlyStop(patience=2); t=tl.Trainer(mk(),nn.CrossEntropyLoss(),tl.optim.sgd(lr=0.))
    print(t.fit((X,Y),(X,Y),observers=[es],epochs=10,batch_size=16,progress=False).epochs, t.fit((X,Y),(X,Y),observers=[es],epochs=10,batch_size=16,progress=False).epochs)
with case("EarlyStop NaN metric"):
    t=tl.Trainer(mk(),nn.CrossEntropyLoss(),sg(),metrics={"a":lambda o,t:float("nan")}); print(t.fit((X,Y),(X,Y),observers=[tl.observers.EarlyStop("a",mode="max",patience=2)],epochs=10,batch_size=16,progress=False).reason)
with case("EarlyStop exact: patience=2 min_delta"):
    seq=iter([1.0,.9,.95,.89,.9,.91,.92,.93,.94]); t=tl.Trainer(mk(),nn.CrossEntropyLoss(),sg(),metrics={"a":lambda o,t:next(seq)}); r=t.fit((X,Y),(X,Y),observers=[tl.observers.EarlyStop("a",mode="min",patience=3)],epochs=9,batch_size=16,progress=False); print(r.epochs,r.reason)
for n,f in {"clip 0":dict(clip_norm=0),"clip neg":dict(clip_value=-1),"clip nan":dict(clip_norm=float("nan")),"acc 0":dict(accumulate=0),"acc 1.5":dict(accumulate=1.5),"prec":dict(precision="fp32x"),"bf":dict(precision="bfloat16"),"mem":dict(memory_format="channel_last"),"dev":dict(device="cuda"),"dev2":dict(device="gpu"),"metrics list":dict(metrics=[1]),"metric class":dict(metrics={"a":torchmetrics.MeanMetric}),"metric named loss":dict(metrics={"loss":lambda o,t:7.}),"clip str":dict(clip_norm="1"),"average class":dict(average=tl.optim.ema),"penalty float":dict(penalty=0.1),"sched str":dict(schedule="cosine"),"compile str":dict(compile="max-autotune")}.items():
    with case(n): 
        t=tl.Trainer(mk(),nn.CrossEntropyLoss(),sg(),**f); r=t.fit((X,Y),(X,Y),**q); print("accepted",r.metrics)
for n,f in {"epochs -1":dict(epochs=-1),"epochs 1.5":dict(epochs=1.5),"both":dict(epochs=1,steps=2),"none":dict(epochs=None),"steps 0":dict(epochs=None,steps=0),"eval_every 0":dict(evaluate_every=0),"seed neg":dict(seed=-1),"seed big":dict(seed=2**70),"seed str":dict(seed="a"),"batch none":dict(batch_size=None),"eval steps 0":dict(evaluate_every_steps=0),"observers not list":dict(observers=print),"observer not callable":dict(observers=[3]),"unknown":dict(epoch=3)}.items():
    with case(n):
        r=tl.Trainer(mk(),nn.CrossEntropyLoss(),sg()).fit((X,Y),**{**q,**f}); print("accepted",r.steps)
with case("frozen model"): 
    m=mk(); m.requires_grad_(False); tl.Trainer(m,nn.CrossEntropyLoss(),sg()).fit((X,Y),**q)
with case("other model's optimizer"): tl.Trainer(mk(),nn.CrossEntropyLoss(),torch.optim.SGD(mk().parameters(),.1)).fit((X,Y),**q)
with case("optimizer class"): tl.Trainer(mk(),nn.CrossEntropyLoss(),torch.optim.SGD).fit((X,Y),**q)
with case("partial optimizer"): tl.Trainer(mk(),nn.CrossEntropyLoss(),__import__("functools").partial(torch.optim.SGD,lr=.1)).fit((X,Y),**q)
with case("lambda params"): tl.Trainer(mk(),nn.CrossEntropyLoss(),lambda m:torch.optim.SGD(m.parameters(),.1)).fit((X,Y),**q)
with case("lr neg"): tl.optim.sgd(lr=-1)
with case("lr nan"): tl.optim.adam(lr=float("nan"))
with case("lr str"): tl.optim.adam(lr="1e-3")
with case("unk"): tl.optim.adam(lrate=1)
with case("betas"): tl.optim.adam(betas=(1.,2.))
with case("loss no graph"): tl.Trainer(mk(),lambda m,b:F.cross_entropy(m(b[0]).detach(),b[1]),sg()).fit((X,Y),**q)
with case("loss other graph"): 
    w=torch.zeros(1,requires_grad=True); tl.Trainer(mk(),lambda m,b:(w*2).sum(),sg()).fit((X,Y),**q)
with case("nan at step 5 names"):
    c=[0]
    class NaNat(nn.Module):
        def forward(s,x): c[0]+=1; return x*float("nan") if c[0]>=5 else x
    m=nn.Sequential(nn.Linear(4,8),nn.BatchNorm1d(8),NaNat(),nn.Linear(8,4)); snap={}
    def ob(e):
        if isinstance(e,tl.StepEnded) and e.step==4: snap.update({k:v.clone() for k,v in m.state_dict().items()})
    try: tl.Trainer(m,nn.CrossEntropyLoss(),tl.optim.adam()).fit((X,Y),observers=[ob],**q)
    finally: print("weights as before", {k:bool(torch.equal(v,m.state_dict()[k])) for k,v in snap.items()})
with case("model class"): tl.Trainer(nn.Linear,nn.MSELoss(),sg())
with case("loss class"): tl.Trainer(mk(),nn.MSELoss,sg()).fit((X,Y),**q)
with case("loss str"): tl.Trainer(mk(),"mse",sg()).fit((X,Y),**q)
with case("model raising own error in forward"):
    class E(nn.Module):
        def __init__(s): super().__init__(); s.l=nn.Linear(4,4)
        def forward(s,x): raise RuntimeError("own")
    tl.Trainer(E(),nn.CrossEntropyLoss(),sg()).fit((X,Y),**q)
with case("last linear has fewer outputs"): tl.Trainer(mk(4,3),nn.CrossEntropyLoss(),sg()).fit((X,Y),**q)
with case("inplace version error second backward"):
    h=[torch.zeros(16,4)]
    tl.Trainer(mk(),lambda m,b:F.cross_entropy(m(b[0]),b[1]),sg()).fit((X,Y),**q)
