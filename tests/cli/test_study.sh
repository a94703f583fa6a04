#!/usr/bin/env bash
# scripts/study: a few problems and settings of every section; the page, and that its numbers agree with each other.
#
# usage: test_study.sh     environment: MIRZAM (the program), MIRZAM_ROOT (the tree). Prints TAP.
set -u

# shellcheck source=tests/cli/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_model "the study"
command -v python3 > /dev/null || skip_all "the study" "python3 is not installed"
[[ -z ${MIRZAM_SHORT:-} ]] || skip_all "the study" "a hundred runs are too long here; the release build has it"
out=$work/study

# study OPTION... : standard output in $work/out, messages in $work/err, exit code in $code
study() {
	"$root/scripts/study" --mirzam "$mirzam" --out "$out" --quick --limit 2 --jobs 1 "$@" > "$work/out" 2> "$work/err"
	code=$?
}

# kept : finished runs
kept() {
	find "$out/runs" -name '*.json' | wc -l
}

study --help
report "--help" grep -q 'scripts/study --publish' "$work/out"
study --only nothing
report "an unknown section" test $code -eq 2
report "is named" grep -q 'no section nothing' "$work/err"
study --plan
wanted=$(wc -l < "$work/out")
report "--plan lists runs" test "$wanted" -gt 40
report "and runs none" test "$(kept)" -eq 0

# interrupted, and gone on with
"$root/scripts/study" --mirzam "$mirzam" --out "$out" --quick --limit 2 --jobs 1 > "$work/out" 2> "$work/err" &
pid=$!
for _ in {1..100}; do
	[[ $(kept) -lt 3 ]] || break
	sleep 0.1
done
kill -INT $pid
wait $pid
code=$?
report "Ctrl-C ends it with 130" test $code -eq 130
before=$(kept)
report "what was finished is kept" test "$before" -ge 3 -a "$before" -lt "$wanted"
report "and nothing half done" test -z "$(find "$out" -name '*.partial' -o -name '*.items')"
study
report "the whole grid" test $code -eq 0
report "with nothing refused" test "$(grep -c refused "$work/err")" -eq 0
report "goes on where it was" grep -q "^$before runs are kept from before" "$work/err"
report "all runs are there" test "$(kept)" -eq "$wanted"
study
report "a second time nothing runs" grep -q "^$wanted runs are kept from before" "$work/err"
report "and the first line says so" test "$(grep -c '^\[' "$work/err")" -eq 0

# what it writes
report "the page" test -s "$out/STUDY.md"
report "has no table without a row" python3 - "$out/STUDY.md" << 'EOT'
import sys
lines = open(sys.argv[1], encoding="utf-8").read().splitlines()
rules = [i for i, line in enumerate(lines) if line.startswith("| ---")]
assert len(rules) > 10
empty = [i for i, line in enumerate(lines) if line.startswith("(No runs")]
assert len(empty) <= 2  # trees and shares by layer, where the program or the calibration has none
assert all(lines[i + 1].startswith("|") for i in rules)
assert all(line.count("|") == lines[i].count("|") for i in rules for line in (lines[i - 1], lines[i + 1]) if line)
EOT
report "plots are XML" python3 - "$out"/docs/study/*.svg << 'EOT'
import sys
import xml.dom.minidom
assert len(sys.argv) == 6
for path in sys.argv[1:]:
    assert xml.dom.minidom.parse(path).getElementsByTagName("polyline"), path
EOT
report "every picture of the page is there" python3 - "$out" << 'EOT'
import os
import re
import sys
page = open(os.path.join(sys.argv[1], "STUDY.md"), encoding="utf-8").read()
names = re.findall(r"\]\((docs/study/[^)]+)\)", page)
assert len(names) == 5 and all(os.path.exists(os.path.join(sys.argv[1], name)) for name in names)
EOT
# By the definitions: W of a sparse run is its density, and of a tied model's tokens W times the weights are the bytes;
# exact is right where dense is, with the same tokens; a fixed period's tokens a check are at most the period.
report "the figures agree" python3 - "$out" << 'EOT'
import glob
import json
import os
import sys
runs = {os.path.basename(p).rsplit("_n", 1)[0]: json.load(open(p)) for p in glob.glob(sys.argv[1] + "/runs/*.json")}
figures = {f["run"]: f for f in json.load(open(sys.argv[1] + "/figures.json"))}
assert set(runs) == set(figures)
for name, kept in runs.items():
    row, figure, dense = kept["row"], figures[name], runs[name.split("_")[0] + "_dense"]
    assert row["n"] == 2 and kept["right"].count("1") == row["correct"] == figure["right"]
    whole = figures[name.split("_")[0] + "_dense"]["megabytes_per_token"]
    assert abs(figure["megabytes_per_token"] - row["work_per_token"] * whole) < 0.01 * whole
    if row["mode"] == "sparse":
        assert abs(row["work_per_token"] - row["density"]) < 1e-6
    if row["mode"] == "exact":
        assert kept["right"] == dense["right"] and kept["texts"] == dense["texts"]
    if row["mode"] in ("exact", "sirius") and row["period"] != "auto":
        assert 1 <= row["aal"] <= row["period"]
EOT

# what is kept is read again, and a torn file made anew
one=$(find "$out/runs" -name '*sparse_griffin_0.3*.json' | sort | head -n 1)
cp "$one" "$work/one.json"
head -c 100 "$work/one.json" > "$one"
study --only table
report "a torn result is made again" test "$(grep -c '^\[' "$work/err")" -eq 1
report "and is what it was" python3 - "$one" "$work/one.json" << 'EOT'
import json
import sys
a, b = (json.load(open(path)) for path in sys.argv[1:])
assert a["texts"] == b["texts"] and a["row"]["work_per_token"] == b["row"]["work_per_token"]
EOT
study --only table --match '_topk_0.3_' --force
report "--force repeats what --match names" test "$(grep -c '^\[' "$work/err")" -eq 2

cp "$root"/scripts/study-parts/*.py "$work/"
report "statistics are those of the books" python3 -B - "$work" << 'EOT'
import math
import sys
sys.path.insert(0, sys.argv[1])
from figures import holm, mcnemar, median, wilson
assert abs(mcnemar(5, 0) - 0.0625) < 1e-12 and mcnemar(0, 5) == mcnemar(5, 0)
assert abs(mcnemar(10, 2) - 158 / 4096) < 1e-12 and mcnemar(3, 3) == 1 and mcnemar(0, 0) == 1
assert all(abs(x - y) < 5e-5 for x, y in zip(wilson(83, 100), (0.7445, 0.8911)))
assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] > 0.9999
assert all(abs(x - y) < 1e-12 for x, y in zip(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06]))
assert median([3, 1, 2]) == 2 and median([4, 1, 2, 3]) == 2.5
EOT

# the page's marks
report "marks that do not match are an error" python3 - "$work" << 'EOT'
import os
import sys
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import page
path = os.path.join(sys.argv[1], "page.md")
def fails(text, blocks):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    try:
        page.fill(path, blocks)
    except SystemExit:
        return True
    return False
good = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n"
assert not fails(good, {"x": "new"})
once = page.fill(path, {"x": "new"})
assert "old" not in once and "new" in once and once.startswith("a\n") and once.endswith("b\n")
assert not fails(once, {"x": "new"}) and page.fill(path, {"x": "new"}) == once
assert fails(good, {"x": "new", "y": "more"}) and fails(good, {"y": "more"})
assert fails("<!-- begin x -->\n", {"x": "new"}) and fails("<!-- end x -->\n", {"x": "new"})
EOT
end
