"""Accuracy matrices of MTIL and the figures that their authors printed for them.

    python generate.py results.ipynb        (writes matrices.json beside this file)

`results.ipynb` is `mtil/results.ipynb` of the repository of ZSCL (Zheng et al., 2023, arXiv 2303.06628), commit
b96e71423e2c. Only its printed outputs are read: an 11 x 11 matrix in percent, row k after task k, and three lines of
figures rounded to one decimal.
"""

import json
import re
import sys
from pathlib import Path

cases = []
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] != "code":
        continue
    tables = ["".join(o["data"]["text/html"]) for o in cell["outputs"] if "text/html" in o.get("data", {})]
    printed = "".join("".join(o["text"]) for o in cell["outputs"] if o["output_type"] == "stream")
    for table in tables:
        values = [float(value) for value in re.findall(r"<td>([^<]*)</td>", table)]
        if len(values) != 121:
            continue
        figure = {name: float(re.search(name + r": +([0-9.]+)\n", printed).group(1)) for name in ["transfer", "avg", "last"]}
        rows = [values[11 * row : 11 * row + 11] for row in range(11)]
        source = "".join(cell["source"]).strip().splitlines()
        cases.append({"source": source[0] if len(source) > 1 else source[-1], "matrix": rows, **figure})
Path(__file__).with_name("matrices.json").write_text(json.dumps(cases, separators=(",", ":")).replace('{"source"', '\n{"source"') + "\n")
print(len(cases), [(c["source"], c["transfer"], c["avg"], c["last"]) for c in cases])
