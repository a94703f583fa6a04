"""One run of the study: a mode and its settings on one model, as a command, and as the JSON it leaves.

A finished run is a file of its own and is not repeated, so a study that was stopped goes on where it was. Beside the
figures of `mirzam eval` it holds, problem by problem, whether the answer was right and a checksum of its tokens, so
that any two runs can be compared in pairs.
"""
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
import zlib

OURS = "aware"


@dataclasses.dataclass(frozen=True)
class Run:
    """What is asked of `mirzam eval`; None: the program's default."""

    model: str
    mode: str
    predictor: str = None
    keep: float = None
    period: object = None  # a number or "auto"; None for modes without checks
    check_below: float = None
    ablate: str = None
    tree: int = None
    tree_path: str = None
    prior: str = "fitted"  # "plain": without the side-car
    by_layer: bool = None  # None: ours as calibrated, the published ones the same share in every layer
    costs: str = "nominal"
    repeat: int = None  # of a run that is timed: its round

    def name(self):
        """Its file name, and what progress shows."""
        parts = [self.model, self.mode]
        if self.predictor:
            parts += [self.predictor, f"{self.keep:g}"]
        if self.period is not None:
            parts.append(f"p{self.period}")
        if self.period == "auto" and self.costs != "nominal":
            parts.append(self.costs)
        if self.check_below is not None:
            parts.append(f"below{self.check_below:g}")
        if self.ablate:
            parts.append("no-" + self.ablate.replace(",", "+"))
        if self.tree is not None:
            parts.append(f"tree{self.tree}-{self.tree_path}")
        if self.prior != "fitted":
            parts.append("prior-" + self.prior)
        if self.by_layer is not None:
            parts.append("by-layer" if self.by_layer else "uniform")
        if self.repeat is not None:
            parts.append(f"timed{self.repeat}")
        return "_".join(parts)

    def options(self, program):
        """Of the command line, without those that are common to all runs."""
        words = ["--mode", self.mode]
        if self.predictor:
            words += ["--predictor", self.predictor, "--keep", f"{self.keep:g}"]
        if self.period is not None:
            words += ["--period", str(self.period)]
        if self.period == "auto":
            words += ["--costs", self.costs]
        if self.check_below is not None:
            words += ["--check-below", f"{self.check_below:g}"]
        if self.ablate:
            words += ["--ablate", self.ablate]
        if self.tree is not None:
            words += ["--tree", str(self.tree), "--tree-path", self.tree_path]
        if self.prior != "fitted":
            words += ["--calib", "off"]
        if program.has("--no-alloc") and not (self.predictor == OURS if self.by_layer is None else self.by_layer):
            words.append("--no-alloc")
        return words

    def is_calibrated(self, fits):
        """Whether its result depends on the side-car."""
        learned = self.predictor in fits or self.period == "auto" or self.check_below is not None or self.by_layer
        return learned and self.prior == "fitted"

    def weight(self):
        """Time it takes, roughly, against the others."""
        base = {"dense": 1.0, "sparse": 1.1}.get(self.mode, 1.4)
        if self.tree:
            base *= 0.5 + self.tree / 2
        return base


class Program:
    """The program under study, and what it can do."""

    def __init__(self, path):
        self.path = path
        version = self.output("--version")
        if version is None:
            raise SystemExit(f"study: {path} does not run; build it, or name it with --mirzam")
        lines = [line for line in version.splitlines() if line.startswith("predictors: ")]
        self.predictors = lines[0].split()[1:] if lines else []
        self.fits = [line.split()[0] for line in (self.output("calibrate", "--fit", "list") or "").splitlines()]
        self.help = self.output("eval", "--help") or ""
        with open(path, "rb") as file:
            self.hash = hashlib.sha256(file.read()).hexdigest()[:12]

    def output(self, *words):
        """What it prints; None when it fails."""
        try:
            done = subprocess.run([self.path, *words], capture_output=True, text=True, check=False)
        except OSError:
            return None
        return done.stdout if done.returncode == 0 else None

    def has(self, option):
        """Whether `mirzam eval` knows the option."""
        return f" {option} " in self.help


def call(command):
    """Runs it; standard error is kept. When the study is interrupted, so is the command, and is waited for."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        try:
            _, errors = child.communicate()
        except KeyboardInterrupt:
            child.terminate()
            raise
    return subprocess.CompletedProcess(command, child.returncode, stderr=errors)


class Refused(Exception):
    """The program says that these settings are not defined."""


def _items(path):
    """Right or wrong, and a checksum of the tokens, of each problem in the order of the file."""
    found = {}
    with open(path, encoding="utf-8") as file:
        next(file)  # the header
        for line in file:
            item = json.loads(line)
            tokens = ",".join(map(str, item["tokens"]))
            found[item["id"]] = ("01"[item["strict_correct"]], f"{zlib.crc32(tokens.encode()):08x}")
    order = sorted(found)
    return "".join(found[i][0] for i in order), [found[i][1] for i in order]


class Store:
    """Finished runs in a folder: one file each, named by the run and its number of problems."""

    def __init__(self, folder, program, data, jobs):
        self.folder, self.program, self.data, self.jobs = folder, program, data, jobs
        self.refused = {}
        os.makedirs(os.path.join(folder, "runs"), exist_ok=True)

    def model_path(self, model):
        """Our copy, beside which the side-car is."""
        return os.path.join(self.folder, model + ".mzm")

    def calibration(self, model):
        """A checksum of the side-car."""
        try:
            with open(os.path.join(self.folder, model + ".mzc"), "rb") as file:
                return hashlib.sha256(file.read()).hexdigest()[:12]
        except FileNotFoundError:
            return None

    def path(self, run, limit):
        """Where its result is kept."""
        return os.path.join(self.folder, "runs", f"{run.name()}_n{limit}.json")

    def get(self, run, limit):
        """Its result; None if there is none, or one of a calibration that is no more."""
        try:
            with open(self.path(run, limit), encoding="utf-8") as file:
                kept = json.load(file)
        except FileNotFoundError:
            return None
        except ValueError:
            return None  # torn: it is made again
        stale = run.is_calibrated(self.program.fits) and kept["calibration"] != self.calibration(run.model)
        return None if stale else kept

    def make(self, run, limit):
        """Runs it and keeps the result."""
        final = self.path(run, limit)
        part, items = final + ".partial", final + ".items"
        timed = run.repeat is not None
        command = [self.program.path, "eval", "-q", "-m", self.model_path(run.model), "--task", "gsm8k", "--data",
                   self.data, "--limit", str(limit), "--threads", "1", "--jobs", str(1 if timed else self.jobs),
                   "--json", part, "--results", items, *run.options(self.program)]
        try:
            if os.path.exists(items):
                os.remove(items)
            done = call(command)
            if done.returncode in (-2, 130):
                raise KeyboardInterrupt
            if done.returncode == 2:
                raise Refused(done.stderr.strip().splitlines()[0] if done.stderr.strip() else "refused")
            if done.returncode != 0:
                raise SystemExit(f"study: {' '.join(command)}\n{done.stderr.strip()}")
            with open(part, encoding="utf-8") as file:
                report = json.load(file)
            right, texts = _items(items)
            kept = {"row": report["rows"][0], "right": right, "texts": texts, "options": run.options(self.program),
                    "program": self.program.hash, "calibration": self.calibration(run.model),
                    "isa": report["machine"]["isa"], "cpu": report["machine"]["cpu"]}
            with open(part, "w", encoding="utf-8") as file:
                json.dump(kept, file)
            os.replace(part, final)
        finally:
            for path in (part, items):
                if os.path.exists(path):
                    os.remove(path)
        return kept


class Progress:
    """A line a run on standard error, with the time that is left."""

    def __init__(self, jobs):
        self.total = sum(run.weight() * limit for run, limit in jobs)
        self.n, self.count = len(jobs), 0
        self.done, self.begin = 0.0, time.monotonic()

    def start(self, run):
        """Called before a run."""
        left = ""
        if self.done > 0:
            seconds = (time.monotonic() - self.begin) * (self.total - self.done) / self.done
            left = f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"
        self.count += 1
        print(f"[{self.count}/{self.n}{left}] {run.name().replace('_', ' ')}", file=sys.stderr, flush=True)

    def finish(self, run, limit):
        """Called after it."""
        self.done += run.weight() * limit


def run_all(store, wanted, force):
    """Makes what is missing of [(run, limit)]. force: also what is there."""
    jobs = [(run, limit) for run, limit in dict.fromkeys(wanted) if force or store.get(run, limit) is None]
    kept = len(set(wanted)) - len(jobs)
    if kept:
        print(f"{kept} runs are kept from before", file=sys.stderr)
    progress = Progress(jobs)
    for run, limit in jobs:
        progress.start(run)
        try:
            store.make(run, limit)
        except Refused as why:
            store.refused[run.name()] = str(why)
            print(f"  refused: {why}", file=sys.stderr)
        progress.finish(run, limit)
