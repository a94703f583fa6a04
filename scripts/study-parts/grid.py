"""What the study runs: the settings of each section, as lists of (run, number of problems)."""
from runs import OURS, Run

MODELS = ("gsmini-6m", "gsmini-6m-relu")
NAMES = {"gsmini-6m": "SwiGLU", "gsmini-6m-relu": "ReGLU"}
FULL = 500  # problems there are

TABLE_KEEPS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TABLE_PREDICTORS = ("griffin", "topk")

# Each predictor where it is of interest: those that choose once need many neurons, those that look at each token few.
KEEPS = {
    "griffin": (0.1, 0.2),
    "griffin-live": (0.1, 0.3, 0.5, 0.7),
    "topk": (0.03, 0.05, 0.1),
    "wina": (0.03, 0.05, 0.1),
    "countdown": (0.03, 0.05, 0.1),
    "cats": (0.05, 0.1),
    "static": (0.3, 0.5, 0.7),
    "svd": (0.05, 0.1, 0.15, 0.25),
    "lowrank": (0.03, 0.05, 0.1, 0.25),
    "aware": (0.03, 0.05, 0.1, 0.15, 0.25, 0.4),
    "oracle": (0.03, 0.1),
    "random": (0.7, 0.9),
    "teal": (0.1, 0.3),
    "countdown-d": (0.05, 0.1, 0.25),
}
OTHER_KEEPS = (0.1, 0.3, 0.5, 0.7)
EXACT_TOO = ("griffin-live", "topk", "svd", "lowrank", "aware")
RIVALS = ("griffin", "topk")
PAIR_KEEPS = (0.05, 0.1, 0.25)

# Drafts, and the fixed periods around their best one.
SETTINGS = (("griffin", 0.5), ("griffin", 0.75), ("griffin-live", 0.5), ("topk", 0.05), ("topk", 0.1),
            ("aware", 0.05), ("aware", 0.1))
PERIODS = {("griffin", 0.5): (2, 3, 4, 5, 6, 8, 16), ("griffin", 0.75): (3, 4, 5, 6, 8, 12, 16),
           ("griffin-live", 0.5): (3, 4, 5, 6, 8, 12, 16)}
OTHER_PERIODS = (8, 12, 16, 24, 32)
BELOW = 0.9  # with period 32

TIMED = (("griffin", 0.5), ("aware", 0.1))
TIMED_PERIODS = (2, 4, 8, 16)
TIMED_PROBLEMS, ROUNDS = 60, 3

ABLATED = (("griffin", 0.5), ("griffin", 0.75))
ABLATIONS = ("kv-rewrite", "rollback", "bonus", "kv-rewrite,rollback")
TREES = (("griffin", 0.5), ("griffin", 0.75))
WIDTHS, PATHS = (1, 2, 4, 8), ("longest", "likeliest", "jump")
TREE_PROBLEMS = 100
PREDICTOR_PROBLEMS = 200
EXACT_PROBLEMS = 250
ALLOCATED = (("griffin", 0.5), ("griffin-live", 0.5), ("static", 0.5), ("svd", 0.1), ("lowrank", 0.05),
             ("aware", 0.05))
PLAIN_PRIOR = (("griffin", 0.5), ("griffin", 0.75), ("topk", 0.1))


class Grid:
    """The runs that each section wants of this program. quick: a few of each, to try all of it in seconds."""

    def __init__(self, program, limit, quick):
        self.predictors = [name for name in program.predictors if name != "dense"]
        self.limit, self.quick = limit, quick
        self.judged = None  # runs whose accuracy is to be known to a point
        self.ablates, self.trees, self.allocates = map(program.has, ("--ablate", "--tree", "--no-alloc"))
        self.ours = OURS
        if quick:
            self.predictors = [p for p in self.predictors if p in ("griffin", "griffin-live", "topk", "static")]
            self.ours = "static"  # is fitted in no time

    def pair_keeps(self):
        """Of our own, where it is compared with others."""
        return self.keeps(self.ours) if self.quick else PAIR_KEEPS

    def thin(self, values, n=2):
        """All of them, or in the quick form the first n."""
        return tuple(values)[:n] if self.quick else tuple(values)

    def known(self, settings, n=2):
        """Those whose predictor this program has."""
        return self.thin([pair for pair in settings if pair[0] in self.predictors], n)

    def keeps(self, predictor):
        """Shares of neurons at which section 2 runs a predictor, beside those of the first table."""
        return self.thin(KEEPS.get(predictor, OTHER_KEEPS), 1)

    def table_keeps(self):
        """Shares of the first table."""
        return self.thin(TABLE_KEEPS)

    def all_keeps(self, predictor):
        """Those of both."""
        more = self.table_keeps() if predictor in TABLE_PREDICTORS else ()
        return tuple(sorted(set(self.keeps(predictor)) | set(more)))

    def dense(self, model, repeat=None):
        """What all others are compared with."""
        return Run(model, "dense", repeat=repeat)

    @property
    def problems(self):
        """Of most runs."""
        return min(self.limit, FULL)

    def sparse(self, model, predictor, keep, **more):
        """Never corrected."""
        return Run(model, "sparse", predictor, keep, **more)

    def corrected(self, model, predictor, keep, mode="sirius", period=16, **more):
        """Checked."""
        return Run(model, mode, predictor, keep, period, **more)

    # ---- sections ----

    def table(self, model):
        """1: the paper's table."""
        runs = [self.dense(model)]
        for predictor in TABLE_PREDICTORS:
            for keep in self.table_keeps():
                runs += [self.sparse(model, predictor, keep), self.corrected(model, predictor, keep)]
        return runs

    def exact_keeps(self, predictor):
        """Where section 2 runs exact mode, too."""
        if predictor not in EXACT_TOO:
            return ()
        return self.keeps(predictor)

    def which(self, model):
        """2: every predictor."""
        runs = [self.dense(model)]
        for predictor in self.predictors:
            for keep in self.keeps(predictor):
                runs += [self.sparse(model, predictor, keep), self.corrected(model, predictor, keep)]
            runs += [self.corrected(model, predictor, keep, "exact") for keep in self.exact_keeps(predictor)]
        return runs

    def periods(self, predictor, keep):
        """Fixed periods of section 3."""
        return self.thin(PERIODS.get((predictor, keep), OTHER_PERIODS), 2)

    def all_periods(self):
        """Those of any setting."""
        return sorted({period for setting in self.known(SETTINGS, 1) for period in self.periods(*setting)})

    def below(self, model, predictor, keep, mode="exact", **more):
        """The threshold policy."""
        return self.corrected(model, predictor, keep, mode, 32, check_below=BELOW, **more)

    def when(self, model):
        """3: when to check, in mode exact: the text is that of dense under every policy."""
        runs = []
        for predictor, keep in self.known(SETTINGS, 1):
            runs += [self.corrected(model, predictor, keep, "exact", n) for n in self.periods(predictor, keep)]
            runs += [self.corrected(model, predictor, keep, "exact", "auto"), self.below(model, predictor, keep)]
            runs.append(self.corrected(model, predictor, keep, "sirius", "auto"))
            runs.append(self.corrected(model, predictor, keep, "sirius", 16))
        return runs

    def timed_settings(self):
        """Of the table of times."""
        return self.known(TIMED, 1)

    def timed(self, model):
        """3, by the clock: rounds, in each of which every policy runs once."""
        runs = []
        for repeat in range(1, (1 if self.quick else ROUNDS) + 1):
            runs.append(self.dense(model, repeat))
            for predictor, keep in self.timed_settings():
                more = {"mode": "exact", "repeat": repeat, "costs": "measured"}
                runs += [self.corrected(model, predictor, keep, period=period, **more)
                         for period in self.thin(TIMED_PERIODS)]
                runs.append(self.corrected(model, predictor, keep, period="auto", **more))
                runs.append(self.below(model, predictor, keep, **more))
        return runs

    def ablated(self):
        """Settings of the table of ablations."""
        return self.known(ABLATED, 1)

    def without(self, model):
        """4: parts left out, refresh, and what the monitor knows beforehand."""
        runs = [self.dense(model)]
        for predictor, keep in self.ablated():
            runs.append(self.corrected(model, predictor, keep))
            if self.ablates:
                runs += [self.corrected(model, predictor, keep, ablate=part) for part in self.thin(ABLATIONS)]
            if predictor == "griffin":
                runs.append(self.corrected(model, "griffin-live", keep))
        for predictor, keep in self.known(PLAIN_PRIOR, 1):
            for prior in ("fitted", "plain"):
                runs.append(self.corrected(model, predictor, keep, "exact", "auto", prior=prior))
            runs.append(self.corrected(model, predictor, keep, "exact", 16))
        return runs

    @staticmethod
    def paths(width):
        """Rules that are compared: at one width all of them."""
        return PATHS if width == 4 else PATHS[:1]

    def tree(self, model):
        """4: trees."""
        if not self.trees:
            return []
        runs = []
        for predictor, keep in self.known(TREES, 1):
            for width in self.thin(WIDTHS):
                for path in self.thin(self.paths(width)):
                    runs.append(self.corrected(model, predictor, keep, tree=width, tree_path=path))
        return runs

    def alloc(self, model):
        """4: layers that keep different shares, as calibration found them, and all the same."""
        runs = []
        for predictor, keep in self.known(ALLOCATED, 1) if self.allocates else ():
            for by_layer in self.both_ways(predictor):
                runs += [self.sparse(model, predictor, keep, by_layer=by_layer),
                         self.corrected(model, predictor, keep, "exact", by_layer=by_layer)]
        return runs

    @staticmethod
    def both_ways(predictor):
        """by_layer of the run with shares by layer, and of that without; one of them is how all others are run."""
        return (None, False) if predictor == OURS else (True, None)

    def limit_of(self, run):
        """Problems that it gets."""
        if self.judged is None:
            self.judged = {run for model in MODELS for name in ("table", "without")
                           for run in getattr(self, name)(model) if run.mode != "exact"}
        most = FULL
        if run.repeat is not None:
            most = TIMED_PROBLEMS
        elif run.tree:
            most = TREE_PROBLEMS
        elif run.mode == "exact":  # right wherever dense is: only work is of interest
            most = EXACT_PROBLEMS
        elif run not in self.judged:
            most = PREDICTOR_PROBLEMS
        return min(self.limit, most)

    def wanted(self, section):
        """[(run, problems)] of a section, on both models."""
        runs = []
        if section == "timed":  # models take turns within a round
            both = [getattr(self, section)(model) for model in MODELS]
            rounds = sorted({run.repeat for run in both[0]})
            for repeat in rounds:
                for one in both:
                    runs += [run for run in one if run.repeat == repeat]
        else:
            for model in MODELS:
                runs += getattr(self, section)(model)
        return [(run, self.limit_of(run)) for run in dict.fromkeys(runs)]


SECTIONS = ("table", "which", "when", "timed", "without", "alloc", "tree")
