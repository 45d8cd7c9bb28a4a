"""A deterministic simulation of the whole chain: one number decides everything, and again the same.

The very objects that the services run, built by their own composition roots, stand in one process
on an event loop of ours. Time is virtual and jumps to the next timer; what is ready in several
processes runs in an order that the seed decides. Only what leaves a process is replaced: the
connection to NATS (`nats_server`, which keeps the same contract tests as the real one,
tests/integration/nats_contract), gRPC's channel and server (`grpc_channel`, `grpc_serving`) and the
WebSocket below the edge (`services`), all on one network (`network`) that is slow, holds, and
breaks. `faults` makes a plan of a seed: replicas, users, their runs (`orders`), and what goes wrong;
`world` carries it out, kills and pauses processes, and waits until the chain has come to rest;
`observing` says what must hold, `endings` how runs may end, given what was away (`absences`); `bugs` are
put into the services to know that this would find them.

    python -m tests.simulation --seeds 2000            what `make simulation` runs
    python -m tests.simulation --seed 263              one seed, with its trace if it fails
    python -m tests.simulation --crash-points --seeds 500   processes die at each crash point (`crashes`)
    python -m tests.simulation --bugs [NAME …] --seeds 2000
"""
