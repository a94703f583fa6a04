/* page.h - the fixed parts of the report page: style, script, legend. No reference leaves the page. */
#ifndef MZE_PAGE_H
#define MZE_PAGE_H

static const char page_style[] =
	":root{color-scheme:light dark;--fg:#1b1f24;--bg:#fff;--soft:#57606a;--line:#d0d7de;--band:#f6f8fa;"
	"--ok:#116329;--bad:#a40e26;--acc:#57606a;--cor:#8a4600;--corbg:#fff1dc;--bon:#0a4fb5;--roll:#a40e26}\n"
	"@media (prefers-color-scheme:dark){:root{--fg:#e6edf3;--bg:#0d1117;--soft:#9aa4af;--line:#363d46;"
	"--band:#161b22;--ok:#57d06a;--bad:#ff8a80;--acc:#9aa4af;--cor:#ffb454;--corbg:#3b2700;--bon:#79b8ff;"
	"--roll:#ff8a80}}\n"
	"body{margin:0 auto;max-width:75rem;padding:1rem;font:15px/1.5 system-ui,sans-serif;color:var(--fg);"
	"background:var(--bg)}\n"
	"h1{font-size:1.4rem;margin:.2rem 0}h2{font-size:1.1rem;margin:2rem 0 .5rem}h3{font-size:.95rem;"
	"margin:.8rem 0 .2rem}\n"
	".wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\n"
	"th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}\n"
	"th:first-child,td:first-child,th:nth-child(2),td:nth-child(2){text-align:left}th{color:var(--soft);"
	"font-weight:600}\n"
	"pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--band);border:1px solid var(--line);"
	"border-radius:6px;padding:.6rem;margin:.2rem 0;font:13px/1.6 ui-monospace,monospace;unicode-bidi:isolate}\n"
	"details{border-bottom:1px solid var(--line);padding:.3rem 0}summary{cursor:pointer;overflow-wrap:anywhere}\n"
	".soft{color:var(--soft)}.ok{color:var(--ok);font-weight:600}.bad{color:var(--bad);font-weight:600}\n"
	".mark{margin-right:.7em;white-space:nowrap}.filter{display:flex;gap:1rem;flex-wrap:wrap;align-items:center}\n"
	/* accepted: dotted underline; corrected: bold in a box; bonus: double underline; rolled back: struck, small */
	".t i{font-style:normal;text-decoration:underline dotted var(--acc);text-underline-offset:3px}\n"
	".t b{color:var(--cor);background:var(--corbg);outline:1px solid var(--cor);border-radius:2px}\n"
	".t u{color:var(--bon);text-decoration:underline double;text-underline-offset:3px}\n"
	".t s{color:var(--roll);text-decoration:line-through;font-size:.85em}.t small{color:var(--soft)}\n"
	"svg{max-width:100%;height:auto}svg text{fill:currentColor;font:12px system-ui,sans-serif}\n"
	".axis{stroke:var(--soft);fill:none}.grid{stroke:var(--line);fill:none}\n"
	".bar{fill:none;stroke:currentColor;stroke-width:1.5}\n"
	".dense{fill:var(--fg)}.exact{fill:var(--bon)}.sirius{fill:var(--cor)}.sparse{fill:var(--roll)}"
	".lossless{fill:var(--acc)}\n"
	".small{display:flex;flex-wrap:wrap;gap:.5rem}figure{margin:0}figcaption{font-size:.85rem;color:var(--soft)}\n"
	".small circle{fill-opacity:.6}\n"
	"@media print{details{break-inside:avoid}.filter{display:none}}\n";

static const char page_legend[] =
	"<p class=\"t\">Token marks: plain = first token, or a mode of one pass a token; <i>accepted</i> = "
	"drafted and kept (dotted underline); <b>corrected</b> = the full model's token in place of a dropped one "
	"(bold, boxed); "
	"<u>bonus</u> = the full model's token after a block kept whole (double underline); <s>rolled back</s> = "
	"drafted and dropped, never part of the text (struck out).</p>\n";

static const char page_script[] =
	"(function(){\n"
	"var mode=document.getElementById('mode'),what=document.getElementById('what'),"
	"shown=document.getElementById('shown');\n"
	"var all=Array.prototype.slice.call(document.querySelectorAll('details.q'));\n"
	"function fits(q,i){var w=what.value;\n"
	" if(w==='right')return q.dataset.right[i]==='1';\n"
	" if(w==='wrong')return q.dataset.right[i]==='0';\n"
	" if(w==='differs')return q.dataset.differs[i]==='1';\n"
	" return true;}\n"
	"function apply(){var m=mode.value,n=0;\n"
	" all.forEach(function(q){var i,hit=false;\n"
	"  for(i=0;i<q.dataset.right.length;i++)if((m==='all'||m===String(i))&&fits(q,i))hit=true;\n"
	"  q.hidden=!hit;if(hit)n++;\n"
	"  q.querySelectorAll('section').forEach(function(s){s.hidden=m!=='all'&&s.dataset.row!==m;});});\n"
	" shown.textContent=n+' of '+all.length+' problems';}\n"
	"mode.addEventListener('change',apply);what.addEventListener('change',apply);apply();\n"
	"})();\n";

#endif
