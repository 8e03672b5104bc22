"""What training says: a JSON object a line on the way, and what is wrong where it cannot be done."""

import json

SCHEMA = "1"


class Refused(Exception):
    """What is wrong, and what to do."""


def say(**what):
    print(json.dumps(what), flush=True)
