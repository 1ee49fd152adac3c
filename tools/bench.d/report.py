"""What was measured, for people and for programs."""

import json
import os
import platform
import statistics
import subprocess
import time


def tables(results):
    """A table in Markdown for each program that crr was compared with."""
    rivals = dict.fromkeys(result.rival for result in results)
    return "\n\n".join(table(rival, [result for result in results if result.rival == rival]) for rival in rivals)


def table(rival, results):
    rows = [("", rival, "crr", f"crr / {rival}", "limit", "")]
    for result in results:
        ratio, holds = result.ratio(), result.holds()
        limit = "" if result.limit is None else f"{result.limit} {result.unit if result.of_crr else ''}".strip()
        rows.append((
            result.what,
            figure(result.theirs, result.unit),
            figure(result.crr, result.unit),
            "" if ratio is None else f"{ratio:.2f}",
            limit,
            {None: "", True: "holds", False: "MISSED"}[holds],
        ))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def figure(samples, unit):
    if not samples:
        return ""
    median = statistics.median(samples)
    return f"{median:.0f} {unit}" if median >= 100 else f"{median:.1f} {unit}"


def of_the_machine(criu, crr):
    """What the figures depend on."""
    def first_line(*words):
        said = subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
        return said[0] if said else ""

    with open("/proc/cpuinfo", encoding="utf-8") as cpus:
        models = [line.partition(":")[2].strip() for line in cpus if line.startswith("model name")]
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "crr": first_line(crr, "--version"),
        "commit": first_line("git", "describe", "--always", "--dirty"),
        "criu": first_line(criu, "--version"),
        "kernel": platform.release(),
        "cpu": f"{os.cpu_count()} x {models[0] if models else platform.machine()}",
        "load": os.getloadavg(),
    }


def write(path, machine, results):
    """Keeps everything: each sample too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = [
        {
            "what": result.what,
            "unit": result.unit,
            "rival": result.rival,
            "rival_median": statistics.median(result.theirs) if result.theirs else None,
            "crr_median": statistics.median(result.crr),
            "ratio": result.ratio(),
            "limit": result.limit,
            "holds": result.holds(),
            "rival_samples": result.theirs,
            "crr_samples": result.crr,
        }
        for result in results
    ]
    path.write_text(json.dumps({"machine": machine, "results": listed}, indent=1) + "\n")
