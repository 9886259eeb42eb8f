"""One run on several processes: torch's engines, one process a device, the same curve as on one.

``world`` knows the processes, ``reduce`` sums over them, ``replicate`` (DDP) and ``shard`` (FSDP2) share a model's
gradients. The batch is the global one: each process computes its slice of it.
"""
