"""The study's tables and plots, from finished runs. A cell without a run is a dash."""
import math

import grid
from figures import Pair, Result, holm, median
from plot import Panel, color, picture

DASH = "-"


def markdown(head, rows, left=1):
    """A table; the first columns are text, the others numbers."""
    if not rows:
        return "(No runs that this table could show.)\n"
    rule = ["---" if i < left else "---:" for i in range(len(head))]
    lines = ["| " + " | ".join(cells) + " |" for cells in [head, rule, *rows]]
    return "\n".join(lines) + "\n"


def number(value, digits=3):
    """A cell; None and NaN are dashes."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:.{digits}f}"


def share(probability):
    """A p, short."""
    if probability >= 0.0995:
        return f"{probability:.1f}"
    return f"{probability:.2g}" if probability >= 0.001 else "<0.001"


def signed(points):
    """A difference of percentages."""
    return f"{points:+.1f}"


class Tables:
    """Everything that the page shows."""

    def __init__(self, grid_, store, bytes_per_token):
        self.grid, self.store, self.bytes = grid_, store, bytes_per_token
        self.cache = {}

    def get(self, run):
        """The result of a run; None."""
        if run not in self.cache:
            kept = self.store.get(run, self.grid.limit_of(run))
            self.cache[run] = Result(run, kept, self.bytes[run.model]) if kept else None
        return self.cache[run]

    def _dense(self, model):
        return self.get(self.grid.dense(model))

    # ---- 1: the paper's table ----

    def paper_rows(self, model):
        """A row for each predictor and keep."""
        g, dense, rows = self.grid, self._dense(model), []
        for predictor in grid.TABLE_PREDICTORS:
            for keep in g.table_keeps():
                sparse, fixed = self._of(model, "sparse", predictor, keep), self._of(model, "sirius", predictor, keep)
                if not (dense and sparse and fixed):
                    continue
                lost = dense.n_right - sparse.n_right
                back = number((fixed.n_right - sparse.n_right) / lost, 2) if lost > 0.02 * dense.n else DASH
                pair = Pair(fixed, dense)
                rows.append([predictor, f"{keep:g}", number(sparse.density), number(dense.percent, 1),
                             number(sparse.percent, 1), number(fixed.percent, 1),
                             f"{signed(pair.points)} ({share(pair.p)})", back, number(fixed.aal_paper, 2),
                             number(fixed.effective), number(fixed.work)])
        return rows

    def paper(self, model):
        """Full, sparse, corrected."""
        head = ["drafts", "keep", "density", "full %", "sparse %", "corrected %", "against full (p)", "recovered",
                "AAL", "ED", "W"]
        return markdown(head, self.paper_rows(model))

    def paper_plot(self):
        """Accuracy against density, with and without correction."""
        panels = []
        for model in grid.MODELS:
            panel = Panel(grid.NAMES[model], "density of a draft pass", "right, %", (0.3, 1.0), (0, 100))
            dense = self._dense(model)
            if dense:
                panel.line(dense.percent, "dense")
            for predictor in grid.TABLE_PREDICTORS:
                for mode, dashed in (("sparse", True), ("sirius", False)):
                    points = []
                    for keep in self.grid.all_keeps(predictor):
                        result = self._of(model, mode, predictor, keep)
                        if result:
                            points.append((result.density, result.percent))
                    panel.add(f"{predictor}, {'alone' if dashed else 'corrected'}", points, color(predictor), dashed)
            panels.append(panel)
        return picture("Drafts alone, and corrected every 16 tokens", "Corrected: mode sirius, threshold 0.1", panels)

    # ---- 2: every predictor ----

    def which_rows(self, model):
        """A row for each predictor and keep."""
        g, dense, rows = self.grid, self._dense(model), []
        for predictor in g.predictors:
            for keep in g.all_keeps(predictor):
                sparse, fixed = self._of(model, "sparse", predictor, keep), self._of(model, "sirius", predictor, keep)
                exact = self._of(model, "exact", predictor, keep)
                if not (dense and sparse and fixed):
                    continue
                pair = Pair(fixed, dense)
                rows.append([predictor, f"{keep:g}", str(sparse.n), number(sparse.density), number(sparse.percent, 1),
                             number(sparse.megabytes, 2), number(fixed.percent, 1),
                             f"{signed(pair.points)} ({share(pair.p)})", number(fixed.aal, 2), number(fixed.work),
                             number(fixed.megabytes, 2), number(exact.aal if exact else None, 2),
                             number(exact.work if exact else None), number(exact.megabytes if exact else None, 2)])
        return rows

    def which(self, model):
        """Alone, corrected and exact."""
        head = ["drafts", "keep", "problems", "density", "alone: %", "MB", "sirius: %", "against dense (p)", "AAL",
                "W", "MB", "exact: AAL", "W", "MB"]
        return markdown(head, self.which_rows(model))

    def cheapest(self):
        """The least work of each predictor that keeps the accuracy."""
        rows = []
        for predictor in self.grid.predictors:
            cells = [predictor]
            for model in grid.MODELS:
                cells += self._cheapest_of(model, predictor)
            if any(cell != DASH for cell in cells[1:]):
                rows.append(cells)
        head = ["drafts"]
        for model in grid.MODELS:
            name = grid.NAMES[model]
            head += [f"{name}: alone", "sirius", "exact"]
        return markdown(head, rows)

    def _cheapest_of(self, model, predictor):
        """Alone and sirius: with accuracy within 2 points of dense; exact: always."""
        g, dense, cells = self.grid, self._dense(model), []
        for mode in ("sparse", "sirius", "exact"):
            best = None
            for keep in g.all_keeps(predictor):
                result = self._of(model, mode, predictor, keep)
                good = result and dense and Pair(result, dense).points >= -2.0
                if good and (best is None or result.work < best.work):
                    best = result
            cells.append(f"{number(best.work)} (keep {best.run.keep:g})" if best else DASH)
        return cells

    def pairs(self):
        """Our predictor against the others, at bytes that are no fewer than its own."""
        found = []
        for model in grid.MODELS:
            for mode in ("sparse", "sirius"):
                for keep in self.grid.pair_keeps():
                    ours = self._of(model, mode, self.grid.ours, keep)
                    for rival in grid.RIVALS if ours else ():
                        theirs = self._dearer(model, mode, rival, ours.megabytes)
                        if theirs:
                            found.append((model, mode, ours, theirs, Pair(ours, theirs)))
        adjusted = holm([pair.p for *_, pair in found])
        rows = []
        for (model, mode, ours, theirs, pair), p in zip(found, adjusted):
            rows.append([grid.NAMES[model], "alone" if mode == "sparse" else mode, f"{ours.run.keep:g}",
                         number(ours.megabytes, 2), number(pair.percent_a, 1),
                         f"{theirs.run.predictor} {theirs.run.keep:g}", number(theirs.megabytes, 2),
                         number(pair.percent_b, 1), f"{signed(pair.points)} ± {pair.se:.1f}",
                         f"{pair.only_a} / {pair.only_b}", share(p)])
        head = ["model", "mode", f"{self.grid.ours}, keep", "MB", "right %", "against", "MB", "right %",
                "points ± s.e.", "only ours / only theirs right", "p (Holm)"]
        return markdown(head, rows, 2)

    def _of(self, model, mode, predictor, keep):
        g = self.grid
        if mode == "sparse":
            return self.get(g.sparse(model, predictor, keep))
        return self.get(g.corrected(model, predictor, keep, mode))

    def _dearer(self, model, mode, predictor, megabytes):
        """Its run of the fewest bytes that are no fewer than these (within half a hundredth)."""
        best = None
        for keep in self.grid.all_keeps(predictor) if predictor in self.grid.predictors else ():
            result = self._of(model, mode, predictor, keep)
            if result and result.megabytes >= 0.995 * megabytes and (best is None or result.megabytes < best.megabytes):
                best = result
        return best

    def which_plot(self, mode, what):
        """what: "accuracy" or "aal", against megabytes a token."""
        panels = []
        for model in grid.MODELS:
            full = self.bytes[model] / 1e6
            y = ((0, 100), "right, %") if what == "accuracy" else ((1, 16), "tokens a check (AAL)")
            panel = Panel(grid.NAMES[model], "MB read a token, all passes", y[1], (0.25 * full, 1.3 * full), y[0])
            dense = self._dense(model)
            if dense and what == "accuracy":
                panel.line(dense.percent, f"dense, {full:.1f} MB")
            for predictor in self.grid.predictors:
                points = []
                for keep in self.grid.all_keeps(predictor):
                    result = self._of(model, mode, predictor, keep)
                    if result:
                        points.append((result.megabytes, result.percent if what == "accuracy" else result.aal))
                panel.add(predictor, points, color(predictor), hollow=predictor == "oracle")
            panels.append(panel)
        title = {"sparse": "Never corrected", "sirius": "Corrected every 16 tokens"}[mode]
        note = "The predictor's own bytes included" + ("" if mode == "sparse" else "; mode sirius, threshold 0.1")
        return picture(title + (": accuracy" if what == "accuracy" else ": what a check brings"), note, panels)

    # ---- 3: when to check ----

    def when(self, model):
        """Work a token under each policy, in mode exact."""
        g, rows = self.grid, []
        for predictor, keep in g.known(grid.SETTINGS, 1):
            fixed = {period: self.get(g.corrected(model, predictor, keep, "exact", period))
                     for period in g.periods(predictor, keep)}
            auto = self.get(g.corrected(model, predictor, keep, "exact", "auto"))
            below = self.get(g.below(model, predictor, keep))
            if not auto or not below or not all(fixed.values()):
                continue
            best = min(fixed, key=lambda period: fixed[period].work)
            works = [fixed[best].work, auto.work, below.work]
            cells = [f"**{number(work)}**" if work == min(works) else number(work) for work in works]
            all_fixed = [number(fixed[n].work) if n in fixed else "" for n in g.all_periods()]
            rows.append([f"{predictor} {keep:g}", *all_fixed, f"{cells[0]} ({best})", cells[1],
                         f"{100 * (auto.work / works[0] - 1):+.1f} %", cells[2], number(auto.aal, 1),
                         number(auto.auc)])
        head = ["drafts"] + [str(period) for period in g.all_periods()]
        head += ["best fixed", "auto", "auto / best", "below 0.9", "AAL, auto", "AUC"]
        return markdown(head, rows)

    def when_sirius(self):
        """Accuracy and work of sirius mode, fixed and automatic."""
        g, rows = self.grid, []
        for model in grid.MODELS:
            dense = self._dense(model)
            for predictor, keep in g.known(grid.SETTINGS, 1):
                fixed = self.get(g.corrected(model, predictor, keep))
                auto = self.get(g.corrected(model, predictor, keep, "sirius", "auto"))
                if not (dense and fixed and auto):
                    continue
                pair, full = Pair(auto, fixed), Pair(auto, dense)
                rows.append([grid.NAMES[model], f"{predictor} {keep:g}", number(full.percent_b, 1),
                             number(pair.percent_b, 1), number(pair.percent_a, 1),
                             f"{signed(pair.points)} ({share(pair.p)})", f"{signed(full.points)} ({share(full.p)})",
                             number(fixed.work), number(auto.work)])
        head = ["model", "drafts", "dense %", "period 16 %", "auto %", "auto - 16 (p)", "auto - dense (p)", "W, 16",
                "W, auto"]
        return markdown(head, rows, 2)

    def when_plot(self):
        """Work against the fixed period; the policies as lines."""
        panels = []
        for model in grid.MODELS:
            panel = Panel(grid.NAMES[model], "fixed period; dashed: auto", "work a token (W), exact", (2, 32),
                          (0.3, 1.4), log_x=True, ticks=[2, 3, 4, 6, 8, 12, 16, 24, 32])
            for predictor, keep in self.grid.known(grid.SETTINGS, 1):
                stroke = color(predictor)
                points = []
                for period in self.grid.periods(predictor, keep):
                    result = self.get(self.grid.corrected(model, predictor, keep, "exact", period))
                    if result:
                        points.append((period, result.work))
                panel.add(f"{predictor} {keep:g}", points, stroke)
                auto = self.get(self.grid.corrected(model, predictor, keep, "exact", "auto"))
                if auto:
                    panel.add("", [(2, auto.work), (32, auto.work)], stroke, True)
            panels.append(panel)
        note = "Mode exact; a check costs 1, a sparse pass its density"
        return picture("When to check", note, panels)

    def timed(self):
        """Speeds against dense of the same round: median and range."""
        g, rows = self.grid, []
        for model in grid.MODELS:
            runs = g.timed(model)
            repeats = sorted({run.repeat for run in runs})
            for predictor, keep in g.timed_settings():
                cells = [grid.NAMES[model], f"{predictor} {keep:g}"]
                policies = list(g.thin(grid.TIMED_PERIODS)) + ["auto", "below"]
                values = [self._ratios(model, predictor, keep, policy, repeats) for policy in policies]
                if all(values):
                    best = max(values, key=median)
                    cells += [self._speed(ratios, ratios is best) for ratios in values]
                    rows.append(cells)
        head = ["model", "drafts"] + [f"period {p}" for p in g.thin(grid.TIMED_PERIODS)] + ["auto", "below 0.9"]
        return markdown(head, rows, 2)

    @staticmethod
    def _speed(ratios, is_best):
        text = number(median(ratios), 2)
        text = f"**{text}**" if is_best else text
        return f"{text} ({min(ratios):.2f}-{max(ratios):.2f})" if len(ratios) > 1 else text

    def _ratios(self, model, predictor, keep, policy, repeats):
        """Of each round; [] when one is missing."""
        ratios = []
        for repeat in repeats:
            more = {"mode": "exact", "repeat": repeat, "costs": "measured"}
            if policy == "below":
                run = self.grid.below(model, predictor, keep, **more)
            else:
                run = self.grid.corrected(model, predictor, keep, period=policy, **more)
            dense, result = self.get(self.grid.dense(model, repeat)), self.get(run)
            if not dense or not result:
                return []
            ratios.append(result.tok_per_s / dense.tok_per_s)
        return ratios

    # ---- 4: what each part is worth ----

    def without(self, model):
        """Correction without its parts."""
        g, dense, rows = self.grid, self._dense(model), []
        for predictor, keep in g.ablated():
            full = self.get(g.corrected(model, predictor, keep))
            if not full or not dense:
                continue
            variants = [("all of it", g.corrected(model, predictor, keep))]
            variants += [("without " + part.replace(",", " and "), g.corrected(model, predictor, keep, ablate=part))
                         for part in g.thin(grid.ABLATIONS)]
            if predictor == "griffin":
                variants.append(("with refresh (griffin-live)", g.corrected(model, "griffin-live", keep)))
            for label, run in variants:
                result = self.get(run)
                if result:
                    pair, to_dense = Pair(result, full), Pair(result, dense)
                    rows.append([f"{predictor} {keep:g}", label, number(result.percent, 1),
                                 DASH if result is full else f"{signed(pair.points)} ({share(pair.p)})",
                                 number(100 * to_dense.same / to_dense.n, 1), number(result.aal, 2),
                                 number(result.work)])
        head = ["drafts", "correction", "right %", "against all of it (p)", "text of dense %", "AAL", "W"]
        return markdown(head, rows, 2)

    def monitor(self):
        """What the monitor and its prior are worth, in mode exact."""
        g, rows = self.grid, []
        for model in grid.MODELS:
            for predictor, keep in g.known(grid.PLAIN_PRIOR, 1):
                fixed = self.get(g.corrected(model, predictor, keep, "exact", 16))
                fitted = self.get(g.corrected(model, predictor, keep, "exact", "auto"))
                plain = self.get(g.corrected(model, predictor, keep, "exact", "auto", prior="plain"))
                if fixed and fitted and plain:
                    rows.append([grid.NAMES[model], f"{predictor} {keep:g}", number(fixed.work), number(plain.work),
                                 number(fitted.work), number(plain.auc), number(fitted.auc),
                                 number(plain.row["monitor"]["brier"], 4), number(fitted.row["monitor"]["brier"], 4)])
        head = ["model", "drafts", "W, period 16", "W, auto, built-in prior", "W, auto, calibrated", "AUC, built-in",
                "AUC, calibrated", "Brier, built-in", "Brier, calibrated"]
        return markdown(head, rows, 2)

    def alloc(self):
        """Shares of neurons by layer against the same share in each. Where calibration found nothing, no row."""
        g, rows = self.grid, []
        for model in grid.MODELS:
            for predictor, keep in g.known(grid.ALLOCATED, 1) if g.allocates else ():
                free, even = ([self.get(g.sparse(model, predictor, keep, by_layer=by_layer)),
                               self.get(g.corrected(model, predictor, keep, "exact", by_layer=by_layer))]
                              for by_layer in g.both_ways(predictor))
                if not all(free + even) or free[0].texts == even[0].texts:
                    continue
                pair = Pair(free[0], even[0])
                rows.append([grid.NAMES[model], f"{predictor} {keep:g}", number(pair.percent_b, 1),
                             number(pair.percent_a, 1), f"{signed(pair.points)} ({share(pair.p)})",
                             number(even[1].aal, 2), number(free[1].aal, 2), number(even[1].work),
                             number(free[1].work)])
        head = ["model", "drafts", "alone, uniform %", "by layer %", "difference (p)", "exact: AAL, uniform",
                "by layer", "W, uniform", "by layer"]
        return markdown(head, rows, 2)

    def tree(self):
        """Trees against the line."""
        g, rows = self.grid, []
        for model in grid.MODELS:
            for predictor, keep in g.known(grid.TREES, 1) if g.trees else ():
                line = self.get(g.corrected(model, predictor, keep, tree=1, tree_path=grid.PATHS[0]))
                for width in g.thin(grid.WIDTHS):
                    for path in g.thin(g.paths(width)):
                        run = g.corrected(model, predictor, keep, tree=width, tree_path=path)
                        result = self.get(run)
                        if result and line:
                            pair = Pair(result, line)
                            rows.append([grid.NAMES[model], f"{predictor} {keep:g}", str(width),
                                         DASH if width == 1 else path, number(result.percent, 1),
                                         f"{signed(pair.points)} ({share(pair.p)})",
                                         number(result.aal, 2), number(result.effective),
                                         number(result.work), number(result.work_nodes, 2)])
        head = ["model", "drafts", "width", "path", "right %", "against the line (p)", "AAL", "ED", "W", "W, nodes"]
        return markdown(head, rows, 4)

    # ---- all ----

    def blocks(self):
        """{name: text} of the page's tables."""
        found = {"cheapest": self.cheapest(), "pairs": self.pairs(), "when-sirius": self.when_sirius(),
                 "timed": self.timed(), "monitor": self.monitor(), "alloc": self.alloc(), "tree": self.tree()}
        for model in grid.MODELS:
            for name in ("paper", "which", "when", "without"):
                found[f"{name}-{grid.NAMES[model].lower()}"] = getattr(self, name)(model)
        return found

    def plots(self):
        """{file name: SVG}."""
        return {"paper.svg": self.paper_plot(), "alone.svg": self.which_plot("sparse", "accuracy"),
                "corrected.svg": self.which_plot("sirius", "accuracy"), "aal.svg": self.which_plot("sirius", "aal"),
                "when.svg": self.when_plot()}
