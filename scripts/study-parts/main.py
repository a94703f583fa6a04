"""The study on the demo models: runs what is missing, then writes tables, plots and the page."""
import argparse
import json
import os
import re
import shutil
import signal
import sys

import page
from figures import Result
import grid as settings
from grid import FULL, MODELS, SECTIONS, Grid
from runs import Program, Store, call, run_all
from tables import Tables

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

EXAMPLES = """\
sections:
  table    griffin and topk at keep 0.3 to 0.9: dense, sparse, corrected
  which    every predictor: accuracy and tokens a check against bytes a token
  when     fixed periods against the confidence monitor, by work
  timed    the same by the clock
  without  correction without its parts, refresh, the monitor's prior
  alloc    layers that keep different shares against layers that keep the same
  tree     tree drafts

examples:
  scripts/study                                  all of it, into build/study
  scripts/study --limit 60                       a first look
  scripts/study --only when,timed                two sections
  scripts/study --match '_aware_' --force        again, all runs of one predictor
  scripts/study --publish                        all of it, then STUDY.md and docs/study anew
  scripts/study --plan                           what would run

Finished runs are kept in the folder and not repeated; a study that was stopped goes on where it was.
"""


def parse(words):
    """The command line."""
    parser = argparse.ArgumentParser(prog="study", description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", metavar="DIR", default=os.path.join(ROOT, "build", "study"),
                        help="where runs, tables and plots go (default: build/study)")
    parser.add_argument("--limit", metavar="N", type=int, default=FULL, help=f"problems (default: {FULL}, all)")
    parser.add_argument("--only", metavar="SECTION,...", help="these sections alone")
    parser.add_argument("--jobs", metavar="N", type=int, default=os.cpu_count() or 1,
                        help="problems in work at a time (default: the cores); timed runs have one")
    parser.add_argument("--match", metavar="REGEX", help="of those only runs with such a name (see --plan)")
    parser.add_argument("--force", action="store_true", help="repeat kept runs; without --match calibrate anew, too")
    parser.add_argument("--quick", action="store_true", help="a few settings of each section, and a short calibration")
    parser.add_argument("--publish", action="store_true",
                        help="then replace the tables of STUDY.md and docs/study/*.svg")
    parser.add_argument("--tables", action="store_true", help="run nothing: tables and plots of what is there")
    parser.add_argument("--plan", action="store_true", help="say what would run, and end")
    parser.add_argument("--mirzam", metavar="PROGRAM", default=os.path.join(ROOT, "build", "release", "mirzam"),
                        help="the program (default: build/release/mirzam, built anew)")
    options = parser.parse_args(words)
    if options.limit < 1 or options.jobs < 1:
        parser.error("--limit and --jobs want a number from 1 up")
    options.sections = options.only.split(",") if options.only else list(SECTIONS)
    for section in options.sections:
        if section not in SECTIONS:
            parser.error(f"no section {section} (there are {', '.join(SECTIONS)})")
    return options


def prepare(options, program):
    """Copies of the models, calibrated on the shipped texts."""
    for model in MODELS:
        copy = os.path.join(options.out, model + ".mzm")
        side_car = os.path.join(options.out, model + ".mzc")
        if not os.path.exists(copy):
            shutil.copyfile(os.path.join(ROOT, "data", model + ".mzm"), copy + ".partial")
            os.replace(copy + ".partial", copy)
        if os.path.exists(side_car) and (options.match or not options.force):
            continue
        print(f"calibrating {model}", file=sys.stderr, flush=True)
        texts = os.path.join(ROOT, "data", "gsmini-calib.jsonl")
        report = os.path.join(options.out, model + ".calibration.json")
        command = [program.path, "calibrate", "-q", "-m", copy, "--data", texts, "--json", report]
        if not options.quick:
            command += ["--fit", ",".join(program.fits)]  # some are learned only if named
        else:
            command += ["--fit", "static", "--tokens", "64", "--limit", "3", "--keep", "0.3"]
        done = call(command)
        if done.returncode != 0:
            if done.returncode in (-2, 130):
                raise KeyboardInterrupt
            raise SystemExit(f"study: {' '.join(command)}\n{done.stderr.strip()}")


def bytes_per_token(program, options):
    """Weights that a dense token reads, by model."""
    found = {}
    for model in MODELS:
        text = program.output("inspect", "--json", os.path.join(options.out, model + ".mzm"))
        if text is None:
            raise SystemExit(f"study: mirzam inspect {model}.mzm failed")
        info = json.loads(text)
        skipped = set() if info["config"]["tied"] else {"embed"}
        found[model] = sum(t["raw_bytes"] for t in info["tensors"] if t["name"] not in skipped)
    return found


def write(path, text):
    """A whole file or none."""
    with open(path + ".partial", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".partial", path)


def conditions(grid, store, wanted):
    """What the numbers were measured with, for the page."""
    programs, calibrations, machines, found = set(), set(), set(), 0
    for run, limit in wanted:
        kept = store.get(run, limit)
        if kept:
            found += 1
            programs.add(kept["program"])
            if run.is_calibrated(store.program.fits):
                calibrations.add((run.model, kept["calibration"]))
            machines.add(f"{kept['cpu']}, {kept['isa']}")
    limit = grid.problems
    exact, few, trees, timed = (min(limit, n) for n in (settings.EXACT_PROBLEMS, settings.PREDICTOR_PROBLEMS,
                                                        settings.TREE_PROBLEMS, settings.TIMED_PROBLEMS))
    runs = str(found) if found == len(wanted) else f"{found} of the grid's {len(wanted)}"
    lines = [f"{runs} runs of `mirzam eval` on the first {limit} of {FULL} problems ({exact} in mode exact, "
             f"whose answers are those of dense; {few} for settings that only section 2 looks at, {trees} for trees, "
             f"{timed} where time was taken); machine and kernels: {'; '.join(sorted(machines))}."]
    if len(programs) > 1 or len(calibrations) > len(MODELS):
        lines.append(f"They come from {len(programs)} builds of the program and {len(calibrations)} calibrations.")
    for name, why in sorted(store.refused.items()):
        lines.append(f"Refused: {name.replace('_', ' ')}: {why}")
    return "\n".join(lines) + "\n"


def write_all(options, program, grid, store):
    """Tables, plots, and the page."""
    tables = Tables(grid, store, bytes_per_token(program, options))
    wanted = list(dict.fromkeys(item for section in SECTIONS for item in grid.wanted(section)))
    blocks = tables.blocks()
    blocks["conditions"] = conditions(grid, store, wanted)
    plots = tables.plots()
    template = os.path.join(ROOT, "STUDY.md")
    places = [options.out] + ([ROOT] if options.publish else [])
    for place in places:
        os.makedirs(os.path.join(place, "docs", "study"), exist_ok=True)
        for name, text in plots.items():
            write(os.path.join(place, "docs", "study", name), text)
        write(os.path.join(place, "STUDY.md"), page.fill(template, blocks))
    write(os.path.join(options.out, "figures.json"), json.dumps(figures(tables, wanted), indent=1) + "\n")
    print(os.path.join(places[-1], "STUDY.md"))


def figures(tables, wanted):
    """Every run's figures, for other programs."""
    found = []
    for run, limit in wanted:
        kept = tables.store.get(run, limit)
        if kept:
            result = Result(run, kept, tables.bytes[run.model])
            found.append({"run": run.name(), "problems": result.n, "right": result.n_right, "density": result.density,
                          "work_per_token": result.work, "aal": result.aal, "megabytes_per_token": result.megabytes,
                          "tok_per_s": result.tok_per_s if run.repeat is not None else None})
    return found


def main():
    """Exit status 130 when interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM):  # whatever the shell that began it in the background said
        signal.signal(number, signal.default_int_handler)
    options = parse(sys.argv[1:])
    options.out = os.path.abspath(options.out)
    program = Program(options.mirzam)
    grid = Grid(program, options.limit, options.quick)
    os.makedirs(options.out, exist_ok=True)
    store = Store(options.out, program, os.path.join(ROOT, "data", "gsmini-test.jsonl"), options.jobs)
    wanted = [item for section in options.sections for item in grid.wanted(section)
              if not options.match or re.search(options.match, item[0].name())]
    if options.plan:
        for run, limit in dict.fromkeys(wanted):
            state = "kept" if store.get(run, limit) else "to run"
            print(f"{state:7} {limit:4} {run.name()}")
        return 0
    try:
        if not options.tables:
            prepare(options, program)
            run_all(store, wanted, options.force)
        write_all(options, program, grid, store)
    except KeyboardInterrupt:
        print("study: interrupted; what is finished is kept, and the same command goes on with the rest",
              file=sys.stderr)
        return 130
    return 0


sys.exit(main())
