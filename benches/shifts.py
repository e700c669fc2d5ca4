"""Test-time methods under shift, as a table: accuracy by kind of damage, calibration, time and memory.

    python benches/shifts.py --inarch BINARY --name cifar10 --data FOLDER [--adapter FOLDER] [--limit 20] [--severity 3] [--methods A,B]
    python benches/shifts.py --inarch BINARY --name digits --plain FOLDER --adapter FOLDER

Makes damaged copies with `inarch corrupt`, adapts on each with `inarch eval --test-time`, prints Markdown. With `--plain`
the images themselves are the shift, for an adapter that was trained elsewhere. Needs no package.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from statistics import mean

KINDS = ["clean", "noise", "blur", "jpeg", "colour", "low-contrast"]
METHODS = "tpt,c-tpt,ttl,tps,mta,zero,tda,dmn-weak,dmn,boost-adapter,dpe,onzeta,tent,sar,swap-prompt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inarch", type=Path, required=True)
    parser.add_argument("--backbone", default="pocket")
    parser.add_argument("--name", required=True, help="for the heading")
    parser.add_argument("--data", type=Path, help="what is damaged")
    parser.add_argument("--plain", type=Path, help="what is taken as it is")
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--limit", type=int, default=20, help="images of each class")
    parser.add_argument("--severity", type=int, default=3)
    parser.add_argument("--methods", default=METHODS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.plain:
            places = {"shifted": given.plain}
        else:
            words = ["--severity", str(given.severity), "--limit", str(given.limit)]
            run(given.inarch, "corrupt", "-d", given.data, "-o", folder, *words)
            level = lambda kind: kind if kind == "clean" else f"{kind}-{given.severity}"
            places = {kind: Path(folder, level(kind)) for kind in KINDS}
        found = {kind: evaluated(given, place) for kind, place in places.items()}
    print(table(given, found))


def run(binary: Path, *words: object) -> dict:
    """What a command says as JSON."""
    done = subprocess.run([binary, *map(str, words), "--json"], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def evaluated(given: argparse.Namespace, place: Path) -> dict[str, dict]:
    """Results by method; `none` is the model without adaptation."""
    words = ["eval", "-b", given.backbone, "-d", place, "--test-time", given.methods, "--set", "test-time.views=16"]
    if given.adapter:
        words += ["-a", given.adapter]
    results = run(given.inarch, *words)
    rows = results.get("methods", [results])
    found = {row["test_time"]["method"]: {"accuracy": row["accuracy"], "ece": row["ece"], **row["test_time"]} for row in rows}
    return {"none": rows[0]["test_time"]["unadapted"] | {"n": rows[0]["n"]}, **found}


def table(given: argparse.Namespace, found: dict[str, dict[str, dict]]) -> str:
    """Rows are methods, columns are kinds."""
    kinds = list(found)
    shifts = [kind for kind in kinds if kind != "clean"]
    several = len(shifts) > 1
    head = ["method", *kinds, *(["mean of shifts"] if several else []), *(["ECE clean"] if "clean" in kinds else [])]
    head += ["ECE shifts", "orders ±", "own ms", "memory"]
    count = found[kinds[0]]["none"]["n"]
    lines = [f"{given.name}, {count} images" + ("" if given.plain else f", severity {given.severity}") + ":", ""]
    lines += [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for method in found[kinds[0]]:
        rows = {kind: found[kind][method] for kind in kinds}
        cells = [f"{100 * row['accuracy']:.1f}" for row in rows.values()]
        if several:
            cells.append(f"{100 * mean(rows[kind]['accuracy'] for kind in shifts):.1f}")
        if "clean" in rows:
            cells.append(f"{rows['clean']['ece']:.3f}")
        cells.append(f"{mean(rows[kind]['ece'] for kind in shifts):.3f}")
        lines.append(f"| {name(method)} | {' | '.join(cells + cost(list(rows.values())))} |")
    return "\n".join(lines)


def name(method: str) -> str:
    return method if method == "none" else f"`{method}`"


def cost(rows: list[dict]) -> list[str]:
    """Spread over shuffled streams, the method's own milliseconds, its state."""
    if "seconds_per_image" not in rows[0]:
        return ["", "", ""]
    orders = [row["order_accuracy"]["std"] for row in rows if row["order_accuracy"]]
    own = mean(row["seconds_per_image"] * (1 - row["views_share"] - row["encode_share"]) for row in rows)
    memory = max(row["memory_bytes"] for row in rows)
    return [
        f"{100 * mean(orders):.1f}" if orders else "",
        "<0.1" if own < 1e-4 else f"{1000 * own:.1f}",
        f"{memory / 1024:.0f} KiB" if memory else "",
    ]


if __name__ == "__main__":
    main()
