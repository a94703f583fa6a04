#!/usr/bin/env python3
"""Generates grade-school word problems with worked answers, one JSON object a line.

The form is GSM8K's: {"question": ..., "answer": "step\nstep\n#### N"}, plus "steps" (how many
arithmetic steps the answer has) and "family". All quantities are whole numbers from 0 to 2000; every
step is stated as 'a op b = c'. The same seed gives the same problems for ever: the order of the random
draws below is part of the data, so do not change it.

usage: gsmini.py --seed S --count N [--min-steps 2] [--max-steps 6] > problems.jsonl
"""
import argparse
import json
import random

NAMES = (
    "Ava Ben Cara Dan Ella Finn Gina Hugo Iris Jack Kira Leo Mia Noah Olga Paul Quinn Rosa Sam Tina "
    "Uma Vera Will Yara Zoe Amir Bella Carlos Dina Emil Farah Grace Hana Ivan Julia Ken Lina Marco Nina Omar"
).split()
GIRLS = set(
    "Ava Cara Ella Gina Iris Kira Mia Olga Quinn Rosa Tina Uma Vera Yara Zoe Bella Dina Farah Grace Hana "
    "Julia Lina Nina".split()
)
ITEMS = (
    "apples marbles stickers pencils cookies shells coins cards books balloons oranges stamps beads "
    "buttons toys flowers eggs candles muffins stones"
).split()
PACKS = "boxes bags packs baskets jars".split()
GOODS = [
    ("notebook", "notebooks"), ("pen", "pens"), ("ticket", "tickets"), ("shirt", "shirts"),
    ("sandwich", "sandwiches"), ("mug", "mugs"), ("puzzle", "puzzles"), ("plant", "plants"),
    ("lamp", "lamps"), ("kite", "kites"), ("ball", "balls"), ("hat", "hats"),
]
WORDS = {2: "twice", 3: "three times", 4: "four times", 5: "five times"}


class Story:
    """Text and worked steps of one problem."""

    def __init__(self, rng):
        self.rng, self.text, self.steps = rng, [], []

    def say(self, *choices):
        """Adds one of the sentences to the question."""
        self.text.append(self.rng.choice(choices))

    def calc(self, a, op, b, lead, tail=""):
        """Adds the step 'lead a op b = c tail.' to the answer and returns c."""
        c = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[op]
        if op == "/" and (b == 0 or a % b):
            raise ValueError("not a whole number")
        if not 0 <= c <= 2000:
            raise ValueError("out of range")
        self.steps.append(f"{lead} {a} {op} {b} = {c}{(' ' + tail) if tail else ''}.")
        return c


def pron(n):
    """Pronoun of a name."""
    return "she" if n in GIRLS else "he"


def inventory(s, k):
    """Somebody has things, gets some, gives some away."""
    r = s.rng
    n, m, it = *r.sample(NAMES, 2), r.choice(ITEMS)
    p, P = pron(n), pron(n).capitalize()
    x = r.randint(5, 90)
    s.say(f"{n} has {x} {it}.", f"{n} starts the day with {x} {it}.", f"There are {x} {it} on {n}'s table.")
    while len(s.steps) < k:
        e = r.choice(("buy", "packs", "give", "lose", "double", "half", "find", "share"))
        if e == "buy":
            b = r.randint(2, 80)
            s.say(f"{P} buys {b} more.", f"Then {p} buys {b} more {it}.", f"{m} brings {n} another {b} {it}.")
            x = s.calc(x, "+", b, f"Now {n} has", it)
        elif e == "find":
            b = r.randint(2, 40)
            s.say(f"Later {p} finds {b} {it}.", f"{P} finds {b} more in a drawer.")
            x = s.calc(x, "+", b, f"After that {n} has", it)
        elif e == "packs":
            if len(s.steps) + 2 > k:
                continue
            c, d, w = r.randint(2, 9), r.randint(2, 12), r.choice(PACKS)
            s.say(f"{P} gets {c} {w} with {d} {it} each.", f"{m} gives {n} {c} {w} of {d} {it} each.")
            t = s.calc(c, "*", d, f"The {w} hold", it)
            x = s.calc(x, "+", t, f"Now {n} has", it)
        elif e == "give":
            if x < 4:
                continue
            b = r.randint(1, x - 1)
            s.say(f"{P} gives {b} to {m}.", f"{n} gives {m} {b} {it}.", f"{P} sells {b} of them.")
            x = s.calc(x, "-", b, f"That leaves {n}", it)
        elif e == "lose":
            if x < 4:
                continue
            b = r.randint(1, min(30, x - 1))
            s.say(f"{P} loses {b} {it} on the way home.", f"Then {b} {it} get lost.")
            x = s.calc(x, "-", b, f"That leaves {n}", it)
        elif e == "double":
            f = r.choice((2, 2, 3, 4))
            if x * f > 600:
                continue
            s.say(
                f"By the end of the week {p} has {WORDS[f]} as many.",
                f"A month later {p} has {WORDS[f]} as many {it}.",
            )
            x = s.calc(x, "*", f, f"Then {n} has", it)
        elif e == "half":
            if x % 2 or x < 4:
                continue
            s.say(f"{P} gives half of the {it} to {m}.", f"Half of the {it} go to {m}.")
            x = s.calc(x, "/", 2, f"That leaves {n}", it)
        else:
            if len(s.steps) + 1 < k:
                continue
            ds = [d for d in range(3, 10) if x % d == 0 and x > d]
            if not ds:
                continue
            d = r.choice(ds)
            s.say(
                f"{P} shares them equally among {d} friends.",
                f"{P} splits all the {it} equally into {d} {r.choice(PACKS)}.",
            )
            x = s.calc(x, "/", d, "Each gets", it)
            s.say(f"How many {it} are in each share?", f"How many {it} does each one get?")
            return x
    s.say(
        f"How many {it} does {n} have now?",
        f"How many {it} does {n} have in the end?",
        f"How many {it} are left with {n}?",
    )
    return x


def compare(s, k):
    """Several people; each has more or fewer than the one before."""
    r = s.rng
    who = r.sample(NAMES, min(k + 1, 5))
    it = r.choice(ITEMS)
    x = r.randint(4, 40)
    vals = [(who[0], x)]
    s.say(f"{who[0]} has {x} {it}.", f"{who[0]} collected {x} {it}.")
    for n in who[1:]:
        if len(s.steps) + 1 >= k and len(vals) > 1:
            break
        prev, v = vals[-1]
        e = r.choice(("times", "more", "fewer", "half"))
        if e == "times":
            f = r.choice((2, 2, 3, 4, 5))
            s.say(f"{n} has {WORDS[f]} as many {it} as {prev}.", f"{n} has {WORDS[f]} as many as {prev}.")
            y = s.calc(v, "*", f, f"{n} has", it)
        elif e == "half" and v % 2 == 0:
            s.say(f"{n} has half as many {it} as {prev}.", f"{n} has half as many as {prev}.")
            y = s.calc(v, "/", 2, f"{n} has", it)
        elif e == "fewer" and v > 5:
            b = r.randint(1, v - 2)
            s.say(f"{n} has {b} fewer {it} than {prev}.", f"{n} has {b} fewer than {prev}.")
            y = s.calc(v, "-", b, f"{n} has", it)
        else:
            b = r.randint(2, 60)
            s.say(f"{n} has {b} more {it} than {prev}.", f"{n} has {b} more than {prev}.")
            y = s.calc(v, "+", b, f"{n} has", it)
        vals.append((n, y))
    left = k - len(s.steps)
    if left == 1:
        (a, x), (b, y) = r.sample(vals, 2) if len(vals) > 2 else vals[-2:]
        if x != y and r.random() < 0.5:
            if x < y:
                a, x, b, y = b, y, a, x
            s.say(f"How many more {it} does {a} have than {b}?")
            return s.calc(x, "-", y, f"{a} has", f"more than {b}")
        s.say(f"How many {it} do {a} and {b} have together?", f"How many {it} do {a} and {b} have in all?")
        return s.calc(x, "+", y, "Together they have", it)
    if left <= 0:
        s.say(f"How many {it} does {vals[-1][0]} have?")
        return vals[-1][1]
    total = vals[0][1]
    for n, v in vals[1:]:
        total = s.calc(total, "+", v, f"With {n} it makes", it)
    s.say(f"How many {it} do they have altogether?", f"How many {it} do they all have in total?")
    return total


def money(s, k):
    """A shopping bill, with coupon, fee or change."""
    r = s.rng
    n = r.choice(NAMES)
    p, P = pron(n), pron(n).capitalize()
    goods = r.sample(GOODS, 3)
    total, said = None, 0
    for (one, many) in goods:
        if k - len(s.steps) <= 1 and total is not None:
            break
        c, q = r.randint(2, 25), r.randint(2, 9)
        s.say(f"A {one} costs {c} dollars and {n} buys {q} of them.", f"{n} buys {q} {many} for {c} dollars each.",
              f"{P if said else n} buys {q} {many} at {c} dollars each.")
        said += 1
        t = s.calc(q, "*", c, f"The {many} cost", "dollars")
        total = t if total is None else s.calc(total, "+", t, "Together that is", "dollars")
    while len(s.steps) < k:
        e = r.choice(("coupon", "fee", "pay"))
        if e == "coupon" and total > 12:
            b = r.randint(2, min(40, total - 2))
            s.say(f"A coupon takes {b} dollars off.", f"{P} uses a coupon worth {b} dollars.")
            total = s.calc(total, "-", b, "With the coupon it is", "dollars")
        elif e == "fee":
            b = r.randint(2, 20)
            s.say(f"Delivery costs {b} dollars more.", f"There is also a fee of {b} dollars.")
            total = s.calc(total, "+", b, "With the fee it is", "dollars")
        elif e == "pay" and len(s.steps) == k - 1:
            bill = r.choice([b for b in (50, 100, 150, 200, 300, 500, 1000) if b > total] or [2000])
            s.say(f"{P} pays with {bill} dollars.", f"{P} hands over {bill} dollars.")
            s.say("How much change does " + p + " get?", f"How many dollars does {n} get back?")
            return s.calc(bill, "-", total, "The change is", "dollars")
    s.say(f"How much does {n} pay in total?", f"How many dollars does {n} spend?")
    return total


def saving(s, k):
    """Money earned by the week, then spent or shared."""
    r = s.rng
    n = r.choice(NAMES)
    p, P = pron(n), pron(n).capitalize()
    a, w = r.randint(3, 40), r.randint(3, 12)
    per = r.choice(("week", "day", "month"))
    s.say(
        f"{n} saves {a} dollars every {per} for {w} {per}s.",
        f"{n} earns {a} dollars a {per} and works for {w} {per}s.",
    )
    x = s.calc(a, "*", w, f"In {w} {per}s {n} gets", "dollars")
    while len(s.steps) < k:
        e = r.choice(("spend", "gift", "half", "split"))
        if e == "spend" and x > 6:
            b = r.randint(2, x - 2)
            g = r.choice(GOODS)[0]
            s.say(
                f"{P} spends {b} dollars on a {g}.",
                f"A {g} costs {'her' if p == 'she' else 'him'} {b} dollars.",
            )
            x = s.calc(x, "-", b, "That leaves", "dollars")
        elif e == "gift":
            b = r.randint(5, 90)
            s.say(f"An uncle gives {n} {b} dollars.", f"{P} gets {b} dollars as a gift.")
            x = s.calc(x, "+", b, f"Now {n} has", "dollars")
        elif e == "half" and x % 2 == 0 and x > 4:
            s.say(f"{P} puts half of the money in the bank.", "Half of the money goes to the bank.")
            x = s.calc(x, "/", 2, "That leaves", "dollars")
        elif e == "split" and len(s.steps) == k - 1:
            ds = [d for d in range(3, 10) if x % d == 0 and x > d]
            if not ds:
                continue
            d = r.choice(ds)
            s.say(
                f"{P} divides the rest equally among {d} children.",
                f"{P} splits it equally between {d} people.",
            )
            s.say("How many dollars does each one get?")
            return s.calc(x, "/", d, "Each gets", "dollars")
    s.say(f"How much money does {n} have left?", f"How many dollars does {n} have now?")
    return x


def rate(s, k):
    """Work at so many units an hour."""
    r = s.rng
    n = r.choice(NAMES)
    p, P = pron(n), pron(n).capitalize()
    work = (("reads", "pages"), ("types", "words"), ("paints", "tiles"), ("packs", "parcels"), ("bakes", "rolls"))
    verb, unit = r.choice(work)
    total = None
    while len(s.steps) < k:
        rest = k - len(s.steps)
        if rest == 1 or (total is not None and r.random() < 0.35):
            if total is None:
                continue
            if r.random() < 0.5:
                b = total + r.randint(5, 200)
                if rest != 1:
                    continue
                s.say(f"The goal is {b} {unit}.", f"{P} has to do {b} {unit} in all.")
                s.say(f"How many {unit} are left to do?", f"How many {unit} remain?")
                return s.calc(b, "-", total, "There remain", unit)
            b = r.randint(2, min(60, max(3, total - 1)))
            if b >= total:
                continue
            s.say(f"Of these, {b} {unit} have to be done again.", f"{b} of the {unit} do not count.")
            total = s.calc(total, "-", b, "That leaves", unit)
            continue
        a, h = r.randint(3, 40), r.randint(2, 9)
        lead = n if total is None else ("Then " + p)
        s.say(
            f"{lead} {verb} {a} {unit} an hour for {h} hours.",
            f"{lead} {verb} {a} {unit} every hour for {h} hours.",
        )
        t = s.calc(a, "*", h, f"In {h} hours {n} {verb}", unit)
        total = t if total is None else s.calc(total, "+", t, "Together that is", unit)
    s.say(f"How many {unit} does {n} finish?", f"How many {unit} is that in all?")
    return total


def seats(s, k):
    """Rows of chairs in a hall."""
    r = s.rng
    place = r.choice(("hall", "theater", "bus station", "school", "cinema", "tent"))
    a, b = r.randint(4, 12), r.randint(4, 30)
    s.say(f"A {place} has {a} rows of {b} chairs.", f"There are {a} rows with {b} chairs each in a {place}.")
    x = s.calc(a, "*", b, "The rows have", "chairs")
    while len(s.steps) < k:
        e = r.choice(("broken", "extra", "taken", "add"))
        if e == "broken" and x > 8:
            c = r.randint(2, min(30, x - 3))
            s.say(f"{c} chairs are broken.", f"{c} of the chairs are taken away.")
            x = s.calc(x, "-", c, "That leaves", "chairs")
        elif e == "extra" and len(s.steps) + 2 <= k:
            c, d = r.randint(2, 6), r.randint(3, 15)
            s.say(f"{c} more rows of {d} chairs are added.", f"Workers add {c} rows with {d} chairs each.")
            t = s.calc(c, "*", d, "The new rows have", "chairs")
            x = s.calc(x, "+", t, "Now there are", "chairs")
        elif e == "add":
            c = r.randint(3, 50)
            s.say(f"{c} more chairs are brought in.", f"Someone brings {c} extra chairs.")
            x = s.calc(x, "+", c, "Now there are", "chairs")
        elif e == "taken" and len(s.steps) == k - 1 and x > 6:
            c = r.randint(3, x - 1)
            s.say(f"{c} people sit down.", f"{c} guests come and each takes a chair.")
            s.say("How many chairs stay empty?", "How many chairs are free?")
            return s.calc(x, "-", c, "Free chairs:", "")
    s.say(f"How many chairs are in the {place} now?", "How many chairs are there in the end?")
    return x


def machine(s, k):
    """Machines make things; some are bad or packed."""
    r = s.rng
    thing = r.choice(("bottles", "bolts", "cans", "toys", "bricks", "boxes"))
    total = None
    while len(s.steps) < k:
        rest = k - len(s.steps)
        if total is not None and (rest == 1 or r.random() < 0.3):
            e = r.choice(("bad", "pack")) if rest == 1 else "bad"
            if e == "pack":
                ds = [d for d in range(3, 13) if total % d == 0 and total > d]
                if ds:
                    d = r.choice(ds)
                    s.say(f"They are packed {d} to a crate.", f"Each crate holds {d} {thing}.")
                    s.say("How many crates are needed?", "How many crates does that fill?")
                    return s.calc(total, "/", d, "The crates needed are", "")
            b = r.randint(2, max(3, total // 3))
            s.say(f"{b} {thing} are thrown away.", f"{b} of them turn out bad.")
            total = s.calc(total, "-", b, "That leaves", thing)
            continue
        if rest == 1 or (total is not None and rest < 2):
            continue
        a, m = r.randint(4, 40), r.randint(3, 12)
        s.say(f"{'A' if total is None else 'Another'} machine makes {a} {thing} a minute for {m} minutes.",
              f"{'One' if total is None else 'A second'} machine runs {m} minutes and makes {a} {thing} each minute.")
        t = s.calc(a, "*", m, "The machine makes", thing)
        total = t if total is None else s.calc(total, "+", t, "Together they make", thing)
    s.say(f"How many good {thing} are there?", f"How many {thing} is that in the end?")
    return total


def ages(s, k):
    """How old people are, will be, or are together."""
    r = s.rng
    who = r.sample(NAMES, min(k + 1, 4))
    x = r.randint(4, 30)
    vals = [(who[0], x)]
    s.say(f"{who[0]} is {x} years old.")
    for n in who[1:]:
        if len(s.steps) + 1 >= k:
            break
        prev, v = r.choice(vals)
        e = r.choice(("older", "younger", "times"))
        if e == "times" and v <= 25:
            f = r.choice((2, 3))
            s.say(f"{n} is {WORDS[f]} as old as {prev}.")
            y = s.calc(v, "*", f, f"{n} is", "years old")
        elif e == "younger" and v > 4:
            b = r.randint(1, v - 2)
            s.say(f"{n} is {b} years younger than {prev}.")
            y = s.calc(v, "-", b, f"{n} is", "years old")
        else:
            b = r.randint(1, 30)
            s.say(f"{n} is {b} years older than {prev}.")
            y = s.calc(v, "+", b, f"{n} is", "years old")
        vals.append((n, y))
    n, v = r.choice(vals)
    rest = k - len(s.steps)
    if rest == 1:
        b = r.randint(2, 25)
        s.say(f"How old will {n} be in {b} years?", f"How old is {n} in {b} years?")
        return s.calc(v, "+", b, f"In {b} years {n} is", "")
    t = None
    for m, y in vals[: rest + 1]:
        t = y if t is None else s.calc(t, "+", y, f"With {m} the sum is")
    names = [m for m, _ in vals[: rest + 1]]
    s.say("How old are " + ", ".join(names[:-1]) + " and " + names[-1] + " together?")
    return t


def parts(s, k):
    """A group loses fractions and percentages."""
    r = s.rng
    groups = (("students", "class"), ("birds", "park"), ("trees", "garden"), ("cars", "lot"), ("fish", "pond"))
    what = r.choice(groups)
    base = r.choice((20, 40, 60, 80, 100, 120, 160, 200, 240, 300, 360, 400))
    s.say(f"There are {base} {what[0]} in a {what[1]}.", f"A {what[1]} has {base} {what[0]}.")
    x = base
    while len(s.steps) < k:
        e = r.choice(("frac", "pct", "come", "go"))
        if e == "frac" and len(s.steps) + 2 <= k:
            fractions = ((2, "Half"), (3, "A third"), (4, "A quarter"), (5, "A fifth"))
            ds = [(d, w) for d, w in fractions if x % d == 0 and x > d]
            if not ds:
                continue
            d, w = r.choice(ds)
            s.say(f"{w} of the {what[0]} leave.", f"{w} of them go away.")
            t = s.calc(x, "/", d, "The part that leaves is", what[0])
            x = s.calc(x, "-", t, "That leaves", what[0])
        elif e == "pct" and len(s.steps) + 2 <= k:
            ps = [q for q in (10, 20, 25, 50) if (x * q) % 100 == 0 and x > 9]
            if not ps:
                continue
            q = r.choice(ps)
            s.say(f"{q} percent of the {what[0]} are moved away.", f"Then {q} percent of them are gone.")
            t = s.calc(x, "/", 100 // q, f"{q} percent is", what[0])
            x = s.calc(x, "-", t, "That leaves", what[0])
        elif e == "come":
            b = r.randint(3, 90)
            s.say(f"{b} more {what[0]} come.", f"Then {b} new {what[0]} are added.")
            x = s.calc(x, "+", b, "Now there are", what[0])
        elif e == "go" and x > 8:
            b = r.randint(2, x // 2)
            s.say(f"{b} {what[0]} leave.", f"{b} of the {what[0]} are taken away.")
            x = s.calc(x, "-", b, "That leaves", what[0])
    s.say(f"How many {what[0]} are in the {what[1]} now?", f"How many {what[0]} are there in the end?")
    return x


FAMILIES = [inventory, inventory, compare, money, saving, rate, seats, machine, ages, parts]


def problem(rng, lo=2, hi=6):
    """One problem of lo to hi steps; draws again until its numbers are whole and in range."""
    while True:
        k = rng.randint(lo, hi)
        fam = rng.choice(FAMILIES)
        s = Story(rng)
        try:
            ans = fam(s, k)
        except ValueError:
            continue
        if len(s.steps) != k or ans > 2000:
            continue
        answer = "\n".join(s.steps) + f"\n#### {ans}"
        return {"question": " ".join(s.text), "answer": answer, "steps": k, "family": fam.__name__}


def main():
    ap = argparse.ArgumentParser(description="Generate word problems with worked answers.")
    ap.add_argument("--seed", type=int, required=True)
    ap.add_argument("--count", type=int, required=True)
    ap.add_argument("--min-steps", type=int, default=2)
    ap.add_argument("--max-steps", type=int, default=6)
    args = ap.parse_args()
    rng = random.Random(args.seed)
    for _ in range(args.count):
        print(json.dumps(problem(rng, args.min_steps, args.max_steps)))


if __name__ == "__main__":
    main()
