"""The report's style sheet, for light and dark, phone and paper. Charts take their colours from its variables."""

CSS = """
:root { color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #1d1c1a; --quiet: #6d6a63; --rule: #e3dfd6; --grid: #ece8df;
  --accent: #14606b; --bar: #bfdadb; --good: #2f6f3e; --bad: #a8402d; --wash: #f3f0e9;
  --c1: #14606b; --c2: #c0672b; --c3: #6a4c93; --c4: #7d8b2f; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15171a; --card: #1b1e22; --ink: #e6e3dc; --quiet: #9b978d; --rule: #31353b; --grid: #282c31;
  --accent: #6fc3cc; --bar: #285258; --good: #86c592; --bad: #e58a74; --wash: #20242a;
  --c1: #6fc3cc; --c2: #e7a06a; --c3: #b79ce0; --c4: #bccb66; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 Charter, "Bitstream Charter", "Iowan Old Style", "Source Serif 4", Georgia, serif; }
main { max-width: 1120px; margin: 0 auto; padding: 0 24px 80px; }
h1, h2, h3 { font-weight: 600; line-height: 1.2; text-wrap: balance; }
h1 { font-size: clamp(1.9rem, 5vw, 3rem); letter-spacing: -0.015em; margin: 0.1em 0 0.35em; }
h2 { font-size: 1.5rem; margin: 3.2rem 0 0.4rem; padding-top: 1.1rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1.05rem; margin: 1.8rem 0 0.4rem; }
p { margin: 0.4em 0 0.9em; max-width: 46em; }
.quiet, .note { color: var(--quiet); }
.note { font-size: 0.875rem; }
.top { padding: 44px 0 0; }
.mark { font-size: 0.9rem; color: var(--quiet); letter-spacing: 0.02em; }
.mark b { color: var(--accent); font-weight: 600; }
.lead { font-size: 1.15rem; max-width: 40em; }
table, .facts, .legend, .who, svg text, summary, nav, .chip, pre, .panel h4, dl.pairs {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums; }
nav { font-size: 0.85rem; margin: 1.6rem 0 0; display: flex; flex-wrap: wrap; gap: 4px 18px; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
.facts { display: flex; flex-wrap: wrap; gap: 1px; margin: 1.6rem 0 0;
  background: var(--rule); border: 1px solid var(--rule); border-radius: 8px; overflow: hidden; }
.facts div { flex: 1 1 150px; background: var(--card); padding: 11px 14px; font-size: 0.95rem; }
.facts dt { color: var(--quiet); font-size: 0.75rem; margin: 0; } .facts dd { margin: 1px 0 0; }
.facts small { color: var(--quiet); display: block; font-size: 0.78rem; line-height: 1.35; }
.scroll { overflow-x: auto; margin: 0.8rem 0; }
table { border-collapse: collapse; font-size: 0.875rem; line-height: 1.35; width: 100%; }
th, td { text-align: left; padding: 7px 10px; border-bottom: 1px solid var(--rule); vertical-align: middle; }
th { font-weight: 500; color: var(--quiet); font-size: 0.78rem; vertical-align: bottom; }
th:first-child, td:first-child { padding-left: 0; } th:last-child, td:last-child { padding-right: 0; }
tbody tr:last-child td { border-bottom: 0; }
.n { text-align: right; white-space: nowrap; }
td small { color: var(--quiet); font-size: 0.78rem; font-weight: 400; white-space: nowrap; }
tr.control td { color: var(--quiet); } tr.control td:first-child { padding-left: 18px; }
tr.final td:first-child, tr.final .score { font-weight: 650; }
.up { color: var(--good); } .down { color: var(--bad); }
.two > div { min-width: 0; overflow-x: auto; }
.two { display: grid; grid-template-columns: minmax(0, 1.15fr) minmax(0, 1fr); gap: 12px 44px; align-items: start; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 14px; margin: 0.8rem 0; }
.panel { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 12px 14px 8px;
  break-inside: avoid; }
.panel h4 { margin: 0; font-size: 0.875rem; font-weight: 600; }
.panel.broad { grid-column: span 2; }
.legend { font-size: 0.76rem; color: var(--quiet); min-height: 1.5em; }
.legend b { color: var(--ink); font-weight: 550; } .key { white-space: nowrap; margin-right: 14px; }
.key i { display: inline-block; width: 12px; height: 3px; border-radius: 2px; margin-right: 5px; vertical-align: 3px; }
svg.chart { display: block; width: 100%; height: auto; }
svg text { font-size: 10.5px; fill: var(--quiet); } svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
svg .grid, svg .axis { stroke: var(--grid); stroke-width: 1; }
svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } svg .faint { stroke-width: 1; opacity: 0.3; }
svg .c1 { stroke: var(--c1); } svg .c2 { stroke: var(--c2); }
svg .c3 { stroke: var(--c3); } svg .c4 { stroke: var(--c4); }
svg .dot.c1 { fill: var(--c1); } svg .dot.c2 { fill: var(--c2); } svg .dot.c3 { fill: var(--c3); }
.key .c1 { background: var(--c1); } .key .c2 { background: var(--c2); } .key .c3 { background: var(--c3); }
.key .c4 { background: var(--c4); }
svg .column { fill: var(--bar); }
svg.interval { display: block; width: 100%; min-width: 80px; height: 20px; }
svg.interval .grid { vector-effect: non-scaling-stroke; }
.interval .bar { fill: var(--bar); } .interval .whisker, .interval .mean { fill: var(--accent); }
.interval.quiet .bar { fill: var(--grid); } .interval.quiet .whisker, .interval.quiet .mean { fill: var(--quiet); }
th.plot { min-width: 110px; } th.plot span { display: flex; justify-content: space-between; font-size: 0.72rem; }
th.plot b { font-weight: 400; } .one { white-space: nowrap; }
table.bars td { padding: 3px 10px 3px 0; border: 0; } table.bars .barcell { width: 40%; padding: 3px 0; }
.barcell span { display: block; height: 9px; min-width: 1px; background: var(--bar); border-radius: 2px; }
.heat { table-layout: fixed; min-width: 620px; } .heat td:first-child { overflow-wrap: anywhere; }
.heat td i { display: block; height: 4px; margin-top: 4px; background: var(--grid); border-radius: 2px; }
.heat td i b { display: block; height: 4px; background: var(--accent); border-radius: 2px; }
.chip { display: inline-block; font-size: 0.74rem; font-weight: 600; padding: 1px 8px; border-radius: 99px;
  border: 1px solid currentColor; white-space: nowrap; }
article { margin: 1.6rem 0 2.2rem; } article > p { font-size: 1.05rem; margin-bottom: 0.2rem; }
.answers { display: grid; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr)); gap: 12px; margin-top: 0.7rem; }
.answer { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 11px 14px; min-width: 0;
  break-inside: avoid; }
.who { display: flex; align-items: baseline; gap: 10px; font-size: 0.875rem; }
.who .quiet { margin-left: auto; font-size: 0.76rem; text-align: right; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 7px 0 0; font-size: 0.8rem; line-height: 1.5;
  max-height: 22em; overflow-y: auto; }
pre.thinking { color: var(--quiet); border-left: 2px solid var(--rule); padding-left: 10px; }
details > summary { cursor: pointer; font-size: 0.8rem; color: var(--accent); margin-top: 6px; }
dl.pairs { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 3px 18px; font-size: 0.9rem; }
dl.pairs dt { color: var(--quiet); } dl.pairs dd { margin: 0; overflow-wrap: anywhere; }
code { font: 0.85em ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
@media (max-width: 760px) { main { padding: 0 16px 60px; } .two { grid-template-columns: 1fr; }
  .panels { grid-template-columns: 1fr; } .panel.broad { grid-column: auto; } .answers { grid-template-columns: 1fr; }
  .wide td:first-child, .wide th:first-child { position: sticky; left: 0; background: var(--paper); z-index: 1;
    padding-right: 14px; } }
@media print { :root { --paper: #fff; --card: #fff; --ink: #000; --quiet: #555; --rule: #ccc; --grid: #e5e5e5;
    --accent: #0b4a53; --bar: #c9dcdd; color-scheme: light; }
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; } nav { display: none; } h2 { break-after: avoid; }
  .scroll { overflow: visible; } table { font-size: 8pt; } pre { max-height: none; }
  .panel, .answer { border-color: #bbb; } }
"""
