"""What load_packed makes of names on the hub of HF_ENDPOINT: python tests/hub_client.py NAME ...

Prints one JSON object: by name, the logits of an image, or the line by which the name is refused.
"""

import json
import sys

import torch

from ablate import load_packed
from ablate.errors import BadInput

found = {}
for name in sys.argv[1:]:
    try:
        with torch.no_grad():
            found[name] = load_packed(name)(torch.ones(1, 3, 32, 32)).logits.tolist()
    except BadInput as error:
        found[name] = str(error)
print(json.dumps(found))
