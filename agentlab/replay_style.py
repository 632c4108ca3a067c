"""The style of pages that are files: one column, light and dark by the reader's setting, fit for print and phones."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--soft:#5b6570;--line:#d5dae0;--shade:#f5f7f9;--accent:#005a8d}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ed;--paper:#14171a;--soft:#a3adb8;--line:#353c44;--shade:#1d2227;
--accent:#6cb8e6}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.7rem;line-height:1.25}h2{font-size:1.25rem;margin:2.4rem 0 .6rem;border-bottom:1px solid var(--line)}
h3{font-size:1.05rem;margin:1.6rem 0 .4rem}
a{color:var(--accent)}
table{border-collapse:collapse;font-size:.86rem;margin:.6rem 0;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding-bottom:.2rem}
th,td{border-bottom:1px solid var(--line);padding:.2rem .7rem .2rem 0;text-align:left;vertical-align:top}
th{font-weight:600}
pre,code{font-family:ui-monospace,monospace;font-size:.86rem}
pre{background:var(--shade);padding:.6rem .8rem;overflow-x:auto;border-radius:4px;white-space:pre-wrap;
word-break:break-word}
.scroll{overflow-x:auto}
.law{font-size:1.25rem;overflow-x:auto;padding:.4rem 0}
.verdict{font-size:1.15rem;border-left:4px solid var(--accent);padding:.3rem 0 .3rem .9rem;margin:1rem 0}
.error{border-left:4px solid #d55e00}
.blank{color:var(--soft);border-bottom:1px dashed var(--soft)}
.ref{color:var(--soft);font-size:.72em;white-space:nowrap}
details>summary{cursor:pointer;color:var(--soft);font-size:.86rem}
figure{margin:1rem 0}figcaption{color:var(--soft);font-size:.86rem}
@media print{:root{--ink:#000;--paper:#fff;--soft:#444;--line:#bbb;--shade:#f4f4f4}main{max-width:none}
h2,h3{break-after:avoid}figure,tr,pre{break-inside:avoid}details:not([open])>summary{display:none}}
"""
