"""Speed on an accelerator: training, inference, pose NMS, sampler, and the loop with its loader.

  python benchmarks/accelerator.py --out DIR [--seconds 230] [--sections NAME …] [--tests] [--tiny]

Each measurement is a line of DIR/results.jsonl, written at once. One that fails, or for which no
time is left, is a line with "error" or "left_out". DIR/table.md has all of them in tables, and
docs/performance.md says what is measured. A section that ends its process is given up, and the next
ones are run in another process.
"""

import argparse
import multiprocessing
import pathlib
import time

from on_accelerator import tests
from on_accelerator.report import Report, read_lines
from on_accelerator.sections import SECTIONS, run
from on_accelerator.table import markdown

GRACE = 20  # seconds after which a measurement that outlasts the budget is ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the results")
    parser.add_argument("--seconds", type=float, default=230, help="budget of everything")
    parser.add_argument("--sections", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--tests", action="store_true", help="then run tests on the accelerator")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, for a rehearsal on a CPU")
    args = parser.parse_args()
    deadline = time.time() + args.seconds

    out = args.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    report = Report(out / "results.jsonl", deadline)
    report.path.unlink(missing_ok=True)
    run_sections(report, args.sections, out, args.tiny)
    if args.tests:
        tests.measure(report, out, args.tiny, platform(report.path))
    table = markdown(read_lines(report.path))
    (out / "table.md").write_text(table, encoding="utf-8")
    print(f"\n{table}", flush=True)


def run_sections(report: Report, names: list[str], out: pathlib.Path, tiny: bool) -> None:
    """Runs sections in a process; in a further one those after a section that ended it."""
    context = multiprocessing.get_context("spawn")
    while names:
        begun = context.Value("i", 0)
        arguments = (names, begun, report.path, report.deadline, out, tiny)
        process = context.Process(target=run, args=arguments)
        process.start()
        process.join(max(report.left(), 0) + GRACE)
        if process.is_alive():
            process.kill()
            process.join()
            report.add(names[begun.value - 1], "process", error="outlasted the budget: was ended")
            return
        if process.exitcode == 0:
            return
        last = max(begun.value, 1)
        message = f"the process ended with exit code {process.exitcode}"
        report.add(names[last - 1], "process", error=message)
        names = names[last:]


def platform(path: pathlib.Path) -> str:
    """The platform that the results were obtained on; a CPU if they do not tell."""
    found = [row["platform"] for row in read_lines(path) if "platform" in row]
    return found[0] if found else "cpu"


if __name__ == "__main__":
    main()
