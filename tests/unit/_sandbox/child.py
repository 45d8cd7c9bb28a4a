"""Makes attempts, each in a process of its own that it forks and that confines itself as asked.

Requests come as lines of JSON on standard input; a line on standard output says what came of each.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from typing import Any

from factorychain._sandbox import (
    CannotConfine,
    Confinement,
    confine,
    hint,
    landlock,
    prepare,
    probe,
)


def main() -> None:
    prepare()
    tempfile.gettempdir()  # which is remembered
    for line in sys.stdin:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writing, json.dumps(_answer(json.loads(line), writing)).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as answers:
            answer = answers.read()
        exit_code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps(json.loads(answer or "{}") | {"exit": exit_code}), flush=True)


def _answer(request: dict[str, Any], answer_to: int) -> dict[str, object]:
    if (abi := request["abi"]) is not None:
        landlock.kernel_abi = lambda: int(abi)
        probe.cache_clear()
    attempt = getattr(importlib.import_module(request["module"]), request["attempt"])
    confinement = json.loads(request["confinement"])
    confinement["keep_descriptors"] += [0, 1, 2, answer_to]
    answer: dict[str, object] = {}
    try:
        applied = confine(Confinement.from_json(json.dumps(confinement)))
        answer["missing"] = list(applied.missing)
        return answer | {"value": attempt(*request["arguments"])}
    except CannotConfine as error:
        return answer | {"error": "CannotConfine", "message": str(error)}
    except BaseException as error:
        answer |= {"error": type(error).__name__, "message": str(error), "hint": hint(error)}
        return answer | {"errno": getattr(error, "errno", None)}


main()
