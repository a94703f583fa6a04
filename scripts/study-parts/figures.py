"""Figures of runs: what follows from their counters, intervals, and paired comparisons."""
import math

Z95 = 1.959964


def wilson(right, n):
    """The 95 % interval of a share."""
    if n == 0:
        return 0.0, 1.0
    p, zz = right / n, Z95 * Z95
    centre = p + zz / (2 * n)
    half = Z95 * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    return max(0.0, (centre - half) / (1 + zz / n)), min(1.0, (centre + half) / (1 + zz / n))


def mcnemar(only_a, only_b):
    """Exact two-sided p of two paired counts."""
    n, least = only_a + only_b, min(only_a, only_b)
    if only_a == only_b:
        return 1.0
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(least + 1)) / 2**n)


def holm(values):
    """Probabilities corrected for their number."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    adjusted, running = [0.0] * len(values), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(values) - rank) * values[i]))
        adjusted[i] = running
    return adjusted


def median(values):
    """The middle one; of an even number the mean of the two."""
    ordered, n = sorted(values), len(values)
    return ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2


class Pair:
    """Two runs on the problems that both have."""

    def __init__(self, a, b):
        self.n = min(a.n, b.n)
        both = list(zip(a.right[: self.n], b.right[: self.n]))
        self.right_a = sum(x == "1" for x, _ in both)
        self.right_b = sum(y == "1" for _, y in both)
        self.only_a = sum(x == "1" and y == "0" for x, y in both)
        self.only_b = sum(x == "0" and y == "1" for x, y in both)
        self.same = sum(x == y for x, y in zip(a.texts[: self.n], b.texts[: self.n]))
        self.points = 100 * (self.right_a - self.right_b) / self.n if self.n else 0.0
        self.p = mcnemar(self.only_a, self.only_b)
        self.percent_a, self.percent_b = (100 * right / max(self.n, 1) for right in (self.right_a, self.right_b))
        # standard error of the difference, in points
        variance = self.only_a + self.only_b - (self.only_a - self.only_b) ** 2 / max(self.n, 1)
        self.se = 100 * math.sqrt(max(variance, 0.0)) / max(self.n, 1)


class Result:
    """A finished run, read."""

    def __init__(self, run, kept, bytes_per_token):
        row = kept["row"]
        self.run, self.row, self.right, self.texts = run, row, kept["right"], kept["texts"]
        self.program = kept["program"]
        self.n, self.n_right = row["n"], row["correct"]
        self.accuracy = self.n_right / self.n
        self.work, self.work_nodes = row["work_per_token"], row["w_nodes"]
        self.density, self.aal, self.aal_paper = row["density"], row["aal"], row["aal_paper"]
        self.effective = row["effective_density"]
        self.tok_per_s = row["tok_per_s"]
        self.auc = row["monitor"]["auc"] if row.get("monitor") else None
        decoded = row["tokens"] - row["n"]  # an answer's first token belongs to its prompt
        self.megabytes = math.nan
        if decoded > 0:
            passes = row["read_density"] * row["sparse_passes"] + row["dense_passes"]
            self.megabytes = passes / decoded * bytes_per_token / 1e6

    @property
    def percent(self):
        """Right answers of a hundred."""
        return 100 * self.accuracy

    def interval(self):
        """The 95 % interval, in percent."""
        lo, hi = wilson(self.n_right, self.n)
        return 100 * lo, 100 * hi
