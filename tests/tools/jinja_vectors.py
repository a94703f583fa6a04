#!/usr/bin/env python3
"""Makes tests/data/jinja_vectors.jsonl and tests/data/chat_vectors.jsonl with Jinja2 itself.

usage: jinja_vectors.py [TREE]

The environment is that of Hugging Face's chat templates: an immutable sandbox with trim_blocks, lstrip_blocks, break and
continue, a generation tag that does nothing, tojson as plain JSON, raise_exception, and strftime_now at a fixed time.
The first line of jinja_vectors.jsonl holds the variables of all templates, of which those with
strftime_now see that time too. The others are {"t": template} with "out", the text; or "raise", the message of raise_exception; or "error",
what Jinja2 says, when it refuses. Lines of chat_vectors.jsonl name a file of tests/data/chat_templates instead.
"""
import datetime
import json
import pathlib
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

NOW = datetime.datetime(2024, 7, 6, 15, 4, 5)


class Raised(Exception):
    pass


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_run", [])
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _run(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise Raised(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


def render(env, template, variables):
    variables = dict(variables)
    if "strftime_now" in variables:
        now = datetime.datetime.fromisoformat(variables["strftime_now"])
        variables["strftime_now"] = lambda form: now.strftime(form)
    try:
        return {"out": env.from_string(template).render(**variables)}
    except Raised as e:
        return {"raise": str(e)}
    except Exception as e:  # whatever Python throws is a refusal
        return {"error": f"{type(e).__name__}: {e}"[:120]}


DATA = {
    "s": "Hello, World", "t": "  padded\t\n", "e": "", "u": "héßllo ŵörld 你好 👋", "q": "it's \"quoted\" \\ \n",
    "i": 7, "n": -3, "z": 0, "f": 2.5, "g": 1e20, "h": 1e-7, "third": 0.1, "yes": True, "no": False, "nil": None,
    "l": [3, 1, 2], "w": ["b", "A", "c", "a"], "el": [], "d": {"b": 1, "a": [1, "x"], "C": None}, "ed": {},
    "m": [{"role": "user", "content": "Hi", "n": 2}, {"role": "assistant", "content": "Yo", "n": 1},
          {"role": "user", "content": "Bye", "tool_calls": [{"name": "f", "arguments": {"x": 1.5, "y": "<&>'"}}]}],
    "deep": {"x": {"y": [10, {"z": "end"}]}, "items": "own", "get": 5},
    "lines": "one\ntwo\r\n\nthree\n", "k": "role",
}

EXPRESSIONS = r"""
s | t | e | u | q | i | n | f | g | h | third | yes | no | nil | l | w | el | d | ed | deep
missing
missing.x
missing['x']
missing()
missing + 1
'a' + missing
missing ~ 'a'
missing | length
missing | upper
missing | default('x')
missing is defined
missing == missing
missing == other
missing == none
not missing
missing in l
1 in missing
-missing
missing < 1
missing | list
missing | join(',')
missing | first
missing | int
missing | tojson
missing | string | length
missing | trim
s.missing
s.missing.deeper
m[9]
m[9].role
nil.x
nil['x']
i.x
1 + 2 * 3 - 4
7 // 2, -7 // 2, 7 % 3, -7 % 3, 7 % -3, 7.5 // 2, -7.5 % 2
7 / 2, 6 / 3, 1 / 3
2 ** 10, 2 ** -1, 2.0 ** 3, -2 ** 2
2 ** 3 ** 2
1 / 0
1 % 0
1.5 % 0
yes + 1, yes * 3, -yes
1.0, 100.0, 1e16, 1e15, 123456789012345678.0, 0.0001, 0.00001, 1.5e300, 5e-324, 0.1 + 0.2, -0.0
1e400, -1e400
1_000, 0, 00
'a' * 3, 3 * 'ab', 'x' * -1, [1] * 3, (1, 2) * 2
'a' 'b' "c"
'a' + 'b' + s
'a' + 1
[1] + [2, 3], (1,) + (2,)
[1] + (2,)
l + none
'a' ~ 1 ~ none ~ true ~ 1.5 ~ [1, 'x'] ~ {'a': 1}
1 ~ 2 + 3
s == 'Hello, World', s != 'x', 1 == 1.0, 1 == true, '1' == 1, none == false, [1] == [1], [1] == (1,), {'a': 1} == {'a': 1.0}
{'a': 1, 'b': 2} == {'b': 2, 'a': 1}, {} == [], (1, 2) == (1, 2)
1 < 2 < 3, 1 < 3 < 2, 1 < 2 > 1 == true
'a' < 'b', 'a' < 'B', 'ab' > 'a', [1, 2] < [1, 3], (1,) <= (1,), 'é' > 'z'
1 < 'a'
none < 1
[1] < ['a']
true < 2, 1.5 >= 1, 2 <= 2, 3 > 4
3 in l, 9 in l, 9 not in l, 'ell' in s, 'x' not in s, 'a' in d, 'z' in d, '' in s, 1.0 in [1], 'b' in ('a', 'b')
1 in s
1 in 5
not true, not '', not not 1, not el, not none
true and false, 1 and 2, 0 and 2, '' or 'x', 'a' or 'b', none or 0 or [] or 'last', 1 and 2 and 3
true and not false or false
not 1 == 2
not 1 in l
'a' if true else 'b', 'a' if el else 'b', ('a' if false) is defined, 'x' ~ ('a' if false)
'a' if false else 'b' if false else 'c'
1 if 1 else 2 if 0 else 3
s[0], s[-1], s[1:4], s[:-3], s[::2], s[::-1], s[7:], s[3:100], s[5:2], s[-3:], u[1], u[-1], u[:5], u[6:][::-1]
s[100], s[-100]
l[0], l[-1], l[1:], l[::-1], l[:2], l[5], l[1:2], (1, 2, 3)[1:], l[-2:], l[:-1], l[::2], l[-1::-1], l[0:0]
l['0']
l[::0]
l['a':]
l[1.0]
l[true], l[false]
l.0, l.1
d['b'], d.b, d['zz'], d.a[1], d.get('b'), d.get('q'), d.get('q', 5), d['C'], deep.x.y[1].z, deep['x']['y'][0]
d[0], d[none], {1: 'a'}[1], {1: 'a'}[true], {none: 1}[none]
d[[1]]
{[1]: 2}
m[0].role, m[0]['content'], m[-1].role, m[0][k]
deep.items is string, deep['items'], deep.get is number, deep['get']
d.items() | list, d.keys() | list, d.values() | list
d | items | list, d | list, d | length
{'a': 1, 'b': [1, 2], 3: none, 'a': 5}, {}, {'x': {'y': ()}}
[1, 'two', 3.0, [none, true]], [], [1,], (1,), (1, 2,), ()
1, 2
'q', "it's", 'say "hi"', 'both \' and "', '\\', '\n\t\r', '\x41\u00e9\U0001f600', '\101\0', '\q\.'
['it\'s', "\"", "'\"", '\n\x00\x7f\x1b', 'é\u200b\u00a0\U000e0001', '\\']
q, [q]
s.upper(), s.lower(), s.title(), s.capitalize(), u.upper(), u.lower(), u.title(), "it's x2y a-b".title(), 'ÉCOLE'.capitalize()
t.strip() ~ '|', t.lstrip() ~ '|', t.rstrip() ~ '|', 'xxaxx'.strip('x'), 'xyaz'.strip('zyx'), 'aax'.lstrip('a'), 'xaa'.rstrip('a')
'é.é'.strip('é'), '\u00a0a\u2003'.strip(), 'abc'.strip(''), 'abc'.strip(none)
'a,b,,c'.split(','), ' a  b c '.split(), 'a b c d'.split(' ', 2), ' a b  c d '.split(none, 2), ''.split(','), ''.split(), 'aXXbXXc'.split('XX')
'a,b,c'.rsplit(',', 1), 'a,b'.rsplit(','), 'abc'.rsplit('x', 3), 'a,b,c'.rsplit(',', 0)
'a'.split('')
'x</think>y</think>z'.split('</think>')[-1], 'x</think>y'.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n')
lines.splitlines(), lines.splitlines(true), ''.splitlines(), '\n'.splitlines(), 'a\u2028b\x0bc\x85d'.splitlines()
s.startswith('He'), s.startswith('x'), s.endswith('ld'), s.endswith(('x', 'd')), s.startswith(''), s.startswith(('a', 'b'))
s.startswith(1)
s.replace('l', 'L'), s.replace('l', 'L', 1), 'aaa'.replace('aa', 'b'), 'abc'.replace('', '-'), 'abc'.replace('', '-', 2), ''.replace('', 'x'), 'é'.replace('', '.')
s.find('o'), s.find('zz'), s.rfind('o'), u.find('你'), s.count('l'), s.count(''), s.index('W'), s.count('zz')
s.index('zz')
'a=b=c'.partition('='), 'a=b=c'.rpartition('='), 'abc'.partition('='), 'abc'.rpartition('=')
'prefix.x'.removeprefix('prefix.'), 'a.py'.removesuffix('.py'), 'abc'.removeprefix('z')
', '.join(['a', 'b']), ''.join([]), '-'.join('abc'), ','.join(d)
', '.join([1, 2])
'12'.isdigit(), ''.isdigit(), '1a'.isdigit(), 'ab'.isalpha(), 'a1'.isalnum(), ' \t'.isspace(), 'é'.isalpha()
l.index(2), l.count(1), l.count(9), (1, 2).index(2)
l.index(99)
l.append(4)
d.update({'x': 1})
d.pop('b')
s.nothing()
s.__class__
s['__class__']
5()
s()
l | first, l | last, el | first, w | first, s | first, s | last, d | first, [[1]] | first | first
l | length, s | length, u | length, d | length, el | count, (1, 2) | length, range(5) | length
5 | length
none | length
l | sort, w | sort, l | sort(reverse=true), w | sort(case_sensitive=true), m | sort(attribute='content') | map(attribute='role') | list, 'bca' | sort
m | sort(attribute='n')
[1, 'a'] | sort
[true, 0, 2.5] | sort
w | unique | list, [1, 2, 1.0, 'a', 'A'] | unique | list, w | unique(case_sensitive=true) | list
l | min, l | max, w | min, w | max, el | min, w | max(case_sensitive=true), m[:2] | max(attribute='n')
l | sum, [1.5, 2] | sum, el | sum, m[:2] | sum(attribute='n'), l | sum(start=10)
l | reverse | list, s | reverse, el | reverse | list, (1, 2) | reverse | list
l | join, l | join(', '), w | join('-'), m | join(', ', attribute='role'), s | join('.'), [1, none, true, 1.5] | join('|'), d | join(',')
5 | join
s | upper, s | lower, 'hello wORLD-foo (bar' | title, 'hELLO' | capitalize, 5 | upper, none | lower, [1] | upper, 'ß' | upper
t | trim ~ '|', 'xxaxx' | trim('x'), 5 | trim ~ '|', '--a--' | trim(chars='-')
s | replace('l', 'L'), s | replace('l', 'L', 1), 'aaa' | replace('a', 1), 5 | replace('5', 'x')
s | string, 5 | string, l | string, none | string | length, 1.5 | string
'5' | int, '5.7' | int, 'x' | int, 'x' | int(9), 5.9 | int, -5.9 | int, true | int, none | int, ' 12 ' | int, '-3' | int, '' | int, '1e3' | int, [] | int(default=4)
'5.5' | float, 'x' | float, 3 | float, 'x' | float(1.5), none | float, '1e3' | float
-5 | abs, (-5) | abs, 5.5 | abs, (-0.5) | abs
42.55 | round, 42.55 | round(1), 2.5 | round, 3.5 | round, 42 | round, 42.1 | round(method='ceil'), 42.9 | round(0, 'floor'), 2.675 | round(2), 0.5 | round
1.5 | round(method='bad')
s | list, d | list, l | list, range(3) | list, 'é你' | list
5 | list
d | dictsort, d | dictsort(true), d | dictsort(reverse=true), {'a': 2, 'b': 1} | dictsort(by='value'), {'a': 2, 'b': 1} | dictsort(false, 'value')
l | dictsort
e | default('x'), e | default('x', true), none | default('x'), none | d('x', true), s | d('x'), missing | d, zero | d(0) + 1, false | default(1, boolean=true)
m | map(attribute='role') | list, m | map(attribute='content') | join(','), m | map(attribute='n', default=0) | list, m | map(attribute='tool_calls.0.name') | list
w | map('upper') | list, [' a ', 'b '] | map('trim') | join, ['a', 'b'] | map('replace', 'a', 'x') | list, [[1, 2], [3]] | map('first') | list, [1, 2] | map('string') | join('-')
[[3, 1], [2]] | map('sort') | map('join', ',') | list
[{'a': {'b': 5}}] | map(attribute='a.b') | list, [[1, 2], [3, 4]] | map(attribute=1) | list
l | map
l | map('nosuch') | list
l | select('gt', 1) | list, l | select('odd') | list, [0, 1, '', 'a', none] | select | list, l | reject('equalto', 1) | list, [1, none] | reject('none') | list
m | selectattr('role', 'equalto', 'user') | list | length, m | selectattr('role', '==', 'user') | map(attribute='content') | list, m | rejectattr('role', 'eq', 'user') | map(attribute='content') | join
m | selectattr('tool_calls') | list | length, m | selectattr('tool_calls', 'defined') | list | length, m | rejectattr('n', 'defined') | list | length, m | selectattr('role', 'in', ['assistant']) | list | length
m | selectattr('role', 'nosuch') | list
m | selectattr
m | selectattr('role') | length
(m | selectattr('role', 'eq', 'nobody')) is defined, true if m | selectattr('role', 'eq', 'nobody') else false
(el | map('upper')) | first is undefined
w | batch(3) | list, w | batch(3, 'x') | list, [] | batch(2) | list, w | batch(2) | list
lines | indent, lines | indent(2, true), lines | indent(width='> '), lines | indent(2, blank=true), '' | indent(2, true), 'a\n' | indent(3, first=true)
'<b>' | safe
'<b>' | safe ~ 'x<'
('<b>' | safe) + 'x'
('<b>' | safe) + '<i>'
l | tojson | safe
s ~ (l | tojson | safe) ~ '<'
nil | map('upper') | list, none | selectattr('x') | list, 0 | reject | list, '' | select | list
l | tojson, d | tojson, s | tojson, u | tojson, q | tojson, nil | tojson, yes | tojson, third | tojson, g | tojson, 1.0 | tojson, () | tojson, '\x00\x1f\x7f' | tojson
m | tojson, deep | tojson, {1: 2, none: 3, true: 4, 1.5: 5} | tojson
u | tojson(ensure_ascii=true), '\x7f' | tojson(true)
d | tojson(indent=2), m | tojson(indent=4), {} | tojson(indent=2), [[], {}] | tojson(indent=1), l | tojson(indent='\t'), l | tojson(indent=0)
d | tojson(separators=(',', ':')), d | tojson(sort_keys=true), [1, {'a': 2}] | tojson(indent=2, separators=(',', ' = '))
d | tojson(separators=(',', ':'), sort_keys=true, indent=2)
{(1, 2): 3} | tojson
range | tojson
namespace(a=1) | tojson
(l | map('string')) | tojson
s | nosuch
s | trim('x', 'y')
s | trim(nosuch=1)
s | upper(1)
s | replace
s is string, i is string, d is mapping, l is mapping, l is sequence, s is sequence, d is sequence, i is sequence, l is iterable, i is iterable, s is iterable, d is iterable
i is number, f is number, yes is number, s is number, i is integer, yes is integer, f is integer, f is float, i is float, yes is boolean, i is boolean
nil is none, i is none, nil is not none, missing is none, nil is defined, s is defined, missing is undefined, m[0].role is defined, m[0].zzz is defined, m[0]['zzz'] is not defined
yes is true, no is false, 1 is true, yes is false, i is odd, i is even, 9 is divisibleby 3, 9 is divisibleby(2)
s is eq('x'), 1 is eq 1, 1 is equalto(1.0), 1 is ne 2, 1 is lt 2, 1 is le(1), 2 is gt 1, 2 is ge 3, 1 is lessthan 2, 2 is greaterthan(1), 'a' is in ['a'], 'a' is not in 'bc'
'ABC' is upper, 'abc' is lower, 'aBc' is upper, '' is lower, '1' is upper
range is callable, s is callable, s.upper is callable, nil is sameas none, yes is sameas true, 1 is sameas true
missing is string, missing is mapping, missing is iterable, missing is sequence, missing is number
(l | map('string')) is iterable, (l | map('string')) is sequence, range(2) is sequence, d.items() is sequence, d.keys() is iterable
s is nosuch
s is defined is string
not s is string
s is not string and i is number
s is string and s | length > 3
s | length == 12 and l | length > 2
1 + l | length
-1 | abs
-l[0]
- 3 + 5
+5, +f, -f
-s
(1 + 2) * 3
((((1))))
range(3) | list, range(1, 4) | list, range(0, 10, 3) | list, range(5, 0, -2) | list, range(0) | list, range(3)[1], range(3)[-1], 2 in range(3), range(5)[1:3] | list
d.items()[0], d.values()[0] is defined
d.keys()[1:]
i[1:]
missing[1:]
nil[:2]
range(3) == range(3), range(3) == [0, 1, 2]
range(1000000)
range(100001) | length
range(0, 5, 0)
range('a')
range()
range(1.5)
dict(a=1, b=2), dict({'x': 1}, y=2), dict()
namespace(a=1).a, namespace({'x': 2}).x, namespace(a=1).b is defined
namespace(a=1, b='x')
raise_exception('stop ' ~ i)
raise_exception('')
strftime_now('%Y')
s.upper().lower().title()[0:3].replace('H', 'J')
{'a': 'b'}.a, {'a': {'b': 'c'}}['a']['b'], [1, [2, 3]][1][0], 'abc'[1], {'user': 'U', 'bot': 'B'}[m[0].role]
{'user': 'U'}.get(m[0].role, 'X') ~ '!', {'x': 1}.x + 1
(1, 2)[0], ('a')[0], ('a',)[0]
m[0].content | trim | upper ~ '!' ~ (m[1].content | lower)
'%s' | length
'{{ x }}', '{% y %}', '}}', '%}'
'a' in ['a', 'b'] and 'c' not in {'d': 1}
(m[0]['role'] == 'user') != (0 % 2 == 0)
m[1:] | length, m[::-1][0].content, (m | last).content, m[-1]['tool_calls'][0]['arguments']['x'], m[-1].tool_calls[0].arguments | tojson, m[-1].tool_calls[0].arguments.items() | list
m[0].get('nope') is none, m[0].get('role', 'q'), m[0].keys() | join('+'), 'role' in m[0], 'nope' in m[0]
1 is
1 +
(1
[1, 2
{'a' 1}
{'a': }
1 2
'unclosed
s.
s |
s | 5
a b
1 = 2
if
not
1 not 2
x is not
f(a=1, 2)
range(*l)
*l
$
s[1:2:3:4]
'\xZZ'
""".strip("\n").split("\n")

TEMPLATES = [
    "", "plain", "a\nb\n", "a\n\n", "\n", "\n\n", "x\r\ny\rz\r\n", "é你👋 {{ u }}", "{{ s }}\n", "{{ s }}\n\n", "{ { } } {a} %} }}",
    "a {{- s -}} b", "a  {{- s -}}  b", "a\n\n{{- s }}\n\nb", "a {{ s -}}\n\n b", "a {{+ s }} b", "\t{{- 1 }}\t{{ 2 -}}\t",
    "{% if true %}\nx\n{% endif %}\ny", "  {% if true %}  \n  x\n  {% endif %}  \ny", "{%- if true -%}\n x \n{%- endif -%}\n y",
    "  {%+ if true %}x{% endif +%}\ny", "a\n  {%+ if true +%}\nx\n  {% endif %}\nb", "a {% if true %}\n b{% endif %}\n\nc",
    "a\n   {# comment #}\nb", "a {# c #} b", "a\n  {#- c -#}  \n b", "{# {{ x }} {% if %} #}", "{##}x{#--#}y{#-#}z", "a {#+ c +#}\nb", "x {# # } #} y",
    "{# unclosed", "{{ unclosed", "{% unclosed", "{{ s", "{{ 'a", "{% if x", "{{", "{%", "{{}}", "{%%}", "{{ }}", "{% %}",
    "{% if true %}", "{% endif %}", "{% if true %}{% endfor %}", "{% for x in l %}{% endif %}", "{% else %}", "{% for %}{% endfor %}", "{% nosuch %}",
    "{% if a %}1{% elif b %}2{% elif s %}3{% else %}4{% endif %}", "{% if no %}1{% elif nil %}2{% else %}4{% endif %}", "{% if no %}1{% endif %}",
    "{% if s %}{% if no %}a{% else %}b{% endif %}{% endif %}", "{% if s: %}x{% endif %}", "{% if s, %}x{% endif %}", "{% if () %}x{% else %}y{% endif %}",
    "{% if yes if no else yes %}x{% endif %}", "{% if missing %}a{% else %}b{% endif %}", "{% if missing.x %}a{% endif %}",
    "{% for x in l %}{{ x }},{% endfor %}", "{% for x in el %}{{ x }}{% else %}none{% endfor %}", "{% for x in l %}{{ x }}{% else %}none{% endfor %}",
    "{% for c in s %}{{ c }}.{% endfor %}", "{% for c in u %}{{ c }}.{% endfor %}", "{% for k in d %}{{ k }}={{ d[k] }};{% endfor %}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d | items %}{{ k }}{% endfor %}", "{% for k, v in d | dictsort %}{{ k }}{{ v }}{% endfor %}", "{% for a, b in [[1, 2], (3, 4)] %}{{ a }}{{ b }};{% endfor %}",
    "{% for a, b, c in [[1, 2, 3]] %}{{ c }}{% endfor %}", "{% for a, b in [[1, 2, 3]] %}{{ a }}{% endfor %}", "{% for a, b in ['xy'] %}{{ b }}{{ a }}{% endfor %}", "{% for (a, b) in [[1, 2]] %}{{ a }}{% endfor %}", 
    "{% for a, b in l %}{{ a }}{% endfor %}", "{% for x in 5 %}{% endfor %}", "{% for x in none %}{% endfor %}", "{% for x in missing %}a{% else %}b{% endfor %}",
    "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }};{% endfor %}",
    "{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}", "{% for x in l %}{{ loop.previtem is defined }}{{ loop.nextitem is undefined }}{% endfor %}",
    "{% for x in l %}{{ loop.cycle('a', 'b') }}{{ loop.depth }}{% for y in l %}{{ loop.depth0 }}{{ loop.index }}{% endfor %}{{ loop.index }};{% endfor %}", "{% for x in [1, 1, 2, 2] %}{{ loop.changed(x) }}{% endfor %}", "{{ loop }}", "{{ loop.index }}", "{% for x in l %}{{ loop.nosuch }}{% endfor %}",
    "{% for x in l if x > 1 %}{{ x }}{{ loop.length }}{{ loop.last }};{% endfor %}", "{% for x in l if x > 9 %}{{ x }}{% else %}nothing{% endfor %}", "{% for m in m if m.role == 'user' %}{{ m.content }}{% endfor %}", "{% for x in l if loop.first %}{{ x }}{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% for x in l %}{{ x }}{% if x == 1 %}{% break %}{% endif %}{% endfor %}", "{% for x in l %}{% for y in l %}{% if y == 1 %}{% break %}{% endif %}{{ y }}{% endfor %};{% endfor %}", "{% for x in l %}{{ x }}{% break %}{% else %}e{% endfor %}", "{% for x in l %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% else %}e{% endfor %}", "{% for x in l %}{{ x }}{% continue %}{% else %}e{% endfor %}", "{% break %}", "{% if true %}{% continue %}{% endif %}",
    "{% for x in l %}{% set y = x %}{{ y }}{% endfor %}{{ y }}", "{% set y = 0 %}{% for x in l %}{{ y }}{% set y = x %}{% endfor %}{{ y }}", "{% for x in l %}{% endfor %}{{ x }}", "{% set x = 'o' %}{% for x in l %}{{ x }}{% endfor %}{{ x }}", "{% for i in range(3) %}{{ i }}{% endfor %}{{ i }}",
    "{% set loop = 5 %}{{ loop }}{% for x in l %}{{ loop.index }}{% endfor %}", "{% for x in l[1:] %}{{ x }}{% endfor %}", "{% for x in l[::-1] %}{{ x }}{% endfor %}", "{% for x in l | reverse %}{{ x }}{{ loop.last }}{% endfor %}", "{% for x in (1, 2) + (3,) %}{{ x }}{% endfor %}", "{% for x in 1, 2 %}{{ x }}{% endfor %}",
    "{% set x = 1 %}{{ x }}", "{% set x, y = 1, 2 %}{{ x }}{{ y }}", "{% set x, y = l %}", "{% set x = y = 1 %}", "{% set x %}", "{% set 5 = 1 %}", "{% set true = 1 %}", "{% set x = 1, 2 %}{{ x }}", "{% set x = [] %}{{ x }}", "{% set s = s ~ '!' %}{{ s }}", "{% set x = 1 if no else 2 %}{{ x }}",
    "{% set x %}a{{ s }}b{% endset %}[{{ x }}]{{ x | length }}", "{% set x | upper %}abc{% endset %}{{ x }}", "{% set x | trim | replace('a', 'b') %} aa {% endset %}{{ x }}", "{% set x %}{% set y = 1 %}{% endset %}{{ y is defined }}", "{% set x %}a{% for i in l %}{{ i }}{% endfor %}{% endset %}{{ x }}", "{% set x, y %}a{% endset %}",
    "{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}", "{% set ns = namespace(n=0) %}{% for x in l %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}", "{% set ns = namespace() %}{% set ns.b = 'x' %}{{ ns.b }}{{ ns.c }}", "{% set d.x = 1 %}", "{% set nosuch.x = 1 %}", "{% set ns = namespace(a=1) %}{% set ns.a, ns.b = 1, 2 %}{{ ns.b }}", "{% set ns = namespace() %}{% set ns.x %}hi{% endset %}{{ ns.x }}", "{% set ns = namespace(l=[]) %}{% for x in l %}{% set ns.l = ns.l + [x * 2] %}{% endfor %}{{ ns.l }}", "{% set ns = namespace(a=1) %}{{ ns['a'] }}", "{% set a = namespace(x=1) %}{% set b = a %}{% set b.x = 5 %}{{ a.x }}", "{% set ns = namespace(found=false) %}{% for x in l %}{% if x == 1 %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.found }}", "{{ namespace(a=1) == namespace(a=1) }}{{ namespace() is mapping }}",
    "{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m(1) }}{{ m('x') }}{{ m() }}{{ m(a=3) }}", "{% macro m(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=5, a=4) }}{{ m(1, b=7) }}", "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(c=2) }}", "{% macro m(a) %}{% endmacro %}{{ m(1, a=2) }}", "{% macro m(a=1, b) %}{% endmacro %}", "{% macro m() %}{{ s }}{% endmacro %}{{ m() | upper }}{{ m() | length }}", "{{ m is defined }}{% macro m() %}{% endmacro %}", "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}", "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}", "{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}", "{% macro m() %}{% set x = 5 %}{{ x }}{% endmacro %}{{ m() }}{{ x }}", "{% macro m(a) %}\n  {{ a }}\n{% endmacro %}\n[{{ m(1) }}]", "{%- macro m(a) -%}\n  {{ a }}\n{%- endmacro -%}\n[{{ m(1) }}]", "{% macro a() %}A{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}", "{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}", "{% set ns = namespace(n=0) %}{% macro m() %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{% endmacro %}{{ m() }}{{ m() }}{{ ns.n }}", "{% macro m(x) %}{% for i in x %}{{ loop.index }}{{ i }}{% endfor %}{% endmacro %}{% for y in l %}{{ m([y]) }}{% endfor %}", "{% macro m(a) %}{{ a.b }}{% endmacro %}{{ m() }}",
    "{% macro t(x) %}{% if x is mapping %}{ {%- for k, v in x.items() %}{{ k }}:{{ t(v) }}{% if not loop.last %},{% endif %}{% endfor %} }{% elif x is string %}'{{ x }}'{% elif x is iterable %}[{% for v in x %}{{ t(v) }}{% if not loop.last %},{% endif %}{% endfor %}]{% else %}{{ x }}{% endif %}{% endmacro %}{{ t(deep) }}{{ t(m) }}",
    "{% filter upper %}abc {{ s }}{% endfilter %}", "{% filter trim | replace('a', 'b') %}  aa {% endfilter %}.", "{% filter nosuch %}{% endfilter %}", "{% filter indent(2) %}a\nb{% endfilter %}",
    "{% with %}{% set x = 1 %}{{ x }}{% endwith %}{{ x }}", "{% with a = 1, b = s %}{{ a }}{{ b }}{% endwith %}{{ a }}", "{% with a = 1, b = a %}{{ b }}{% endwith %}", "{% for x in l %}{% with y = x %}{% if y == 1 %}{% break %}{% endif %}{{ y }}{% endwith %}{% endfor %}",
    "{% generation %}a{{ s }}{% endgeneration %}b", "{% for x in l %}{% generation %}{{ x }}{% set q = 1 %}{% endgeneration %}{% endfor %}{{ q | length }}", "a\n  {% generation %}\n  x\n  {%- endgeneration %}\nb",
    "{% raw %}{{ x }} {% if %}{% endraw %}y", "{% raw -%}  a {{ b }}\n  {%- endraw %}\nc", "a\n  {% raw %}\n{{ x }}\n  {% endraw %}\nb", "{% raw %}x", "{%- raw %} {# #} {% endraw -%}  y", "{%raw%}{%endraw%}z", "{% raw %}{% endra %}{% endraw %}",
    "{{ {'a': {'b': 1}} }}", "{{ {'a': {'b': 1}}.a.b}}", "{{ '}}' }}{{ \"%}\" }}", "{{ {}}}", "{{-1}}", "{{ 1 -}}  x", "{{ [1,\n 2,\n  3] }}\nx", "{{ (1 }}", "{{ 1) }}", "{{ [1) }}", "{% set x = {'a': 1} %}{{ x['a'] }}", "{{ s }}{{ s }}{{- s }}\n  {{ s -}}\n{{ s }}",
    "{% if s == 'Hello, World' and (i > 5 or no) and not nil %}ok{% endif %}", "{{ raise_exception('Only user and assistant roles are supported!') }}", "{% if no %}{{ raise_exception('x') }}{% endif %}fine", "{% set x = raise_exception('in set') %}", "{{ 'a' ~ raise_exception('é你') }}",
    "{% include 'x' %}", "{% extends 'x' %}", "{% import 'x' as y %}", "{% do l.append(1) %}",
    "{{ a or 'x' }}{{ m[0].name | default('anon') }}{{ m[0].name or 'anon' }}", "{{ m[0]['content'] + '\\n' + s }}", "{{ '<|im_start|>' + m[0]['role'] + '\\n' + m[0]['content'] + '<|im_end|>' + '\\n' }}",
    "{% for message in m %}{{ '<|' ~ message.role ~ '|>' }}{% if loop.last and message.tool_calls %}{{ message.tool_calls | tojson }}{% endif %}{% endfor %}", "{% set sys = m | selectattr('role', 'equalto', 'system') | list %}{{ sys | length }}{{ sys }}", "{% if m | selectattr('role', 'equalto', 'nobody') %}true{% else %}false{% endif %}", "{% set users = m | selectattr('role', 'eq', 'user') %}{% for x in users %}{{ x.content }}{% endfor %}{% for x in users %}{{ x.content }}{% endfor %}.", "{% set r = l | reverse %}{{ r | list }}{{ r | list }}",
    "{{ strftime_now('%d %b %Y') }}", "{{ strftime_now('%A %B %-d, %Y %H:%M:%S %j %p %I %y %a %%') }}", "{{ strftime_now is defined }}", "{% set loop_messages = m[1:] %}{% for x in loop_messages %}{{ x.role }}{% endfor %}",
    "{% for message in m %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}{{ message.content }}{% endfor %}", "{% if 'tools' in d and d.tools is defined %}a{% endif %}{% if tools is not none %}b{% endif %}", "{% set content = m[0]['content'] %}{% if content is string %}{{ content }}{% else %}{% for c in content %}{{ c.text }}{% endfor %}{% endif %}",
    "{% if not date_string is defined %}{% set date_string = 'today' %}{% endif %}{{ date_string }}", "{% if true %}{% set inner = 5 %}{% endif %}{{ inner }}", "{%- for k in d -%}\n  {{- k -}}\n{%- endfor -%}", "{{ true }}{{ True }}{{ None }}{{ none }}{{ False }}", "line1 \\\n line2", "{{ 'a\\\nb' }}", "{{ 'a\nb' }}", "\u00a0{%- if true -%}\u2003x{%- endif %}",
    "{{ s ~ }}", "{% set %}", "{% macro %}{% endmacro %}", "{% macro m %}{% endmacro %}", "{% for x l %}{% endfor %}", "{% if %}{% endif %}", "{{ s | }}", "{{ | s }}", "{% endmacro %}", "{{ s }", "{% if s }}{% endif %}", "{{ s %}",
]


def cases():
    with_time = dict(DATA, strftime_now=NOW.isoformat())
    for line in EXPRESSIONS:
        if line and line[0] == "s" and " | t | " in line:
            yield from (("{{ " + name.strip() + " }}", DATA) for name in line.split("|"))
        else:
            yield "{{ " + line + " }}", DATA
    for template in TEMPLATES:
        yield template, with_time if "strftime" in template else DATA


def conversations():
    yield "single", [("user", "Hello!")]
    yield "system", [("system", "Be brief. "), ("user", " Hi there\n")]
    yield "turns", [("user", "One"), ("assistant", "Two"), ("user", "Three")]
    yield "system turns", [("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    yield "thinking", [("user", "q"), ("assistant", "<think>\nhm\n</think>\n\nanswer"), ("user", "r")]
    yield "unicode", [("user", "Grüße, 你好 👋 <|im_end|> {{ x }} {% y %}")]
    yield "assistant first", [("assistant", "I begin"), ("user", "ok")]
    yield "two users", [("user", "a"), ("user", "b")]
    yield "late system", [("user", "a"), ("system", "b"), ("user", "c")]
    yield "other role", [("tool", "result"), ("user", "a")]
    yield "empty text", [("user", ""), ("assistant", ""), ("user", "")]
    yield "none", []


def tokens(text):
    """The special tokens that a template's first line, a comment, names: {# {"bos_token": ...} #}"""
    first = text.split("\n", 1)[0]
    return json.loads(first.removeprefix("{#").removesuffix("#}"))


def chats(env, folder):
    for path in sorted(folder.glob("*.jinja")):
        text = path.read_text(encoding="utf-8")
        special = tokens(text)
        for name, turns in conversations():
            for generate in (False, True):
                for now in (None, NOW):
                    if now and "strftime_now" not in text:
                        continue
                    variables = dict(special, tools=None, documents=None, add_generation_prompt=generate,
                                     messages=[{"role": r, "content": c} for r, c in turns])
                    if now:
                        variables["strftime_now"] = now.isoformat()
                    line = {"file": path.name, "name": name, "turns": turns, "generate": generate, "now": bool(now)}
                    yield dict(line, **render(env, text, variables))


def main():
    tree = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[2])
    data = tree / "tests/data"
    env = environment()
    with open(data / "jinja_vectors.jsonl", "w", encoding="utf-8") as f:
        f.write(json.dumps({"data": DATA, "now": NOW.isoformat()}, ensure_ascii=False) + "\n")
        seen = set()
        for template, variables in cases():
            if template in seen:
                continue
            seen.add(template)
            line = {"t": template, **render(env, template, variables)}
            if " at 0x" not in line.get("out", ""):  # addresses
                f.write(json.dumps(line, ensure_ascii=False) + "\n")
    with open(data / "chat_vectors.jsonl", "w", encoding="utf-8") as f:
        for line in chats(env, data / "chat_templates"):
            f.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
