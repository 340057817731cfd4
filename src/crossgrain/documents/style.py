"""How the report looks: one light style sheet, no fonts or files from elsewhere."""

STYLE = """
:root {
  color-scheme: light; --ink: #1f2630; --soft: #5d6878; --line: #e1e5ea; --right: #12813f; --wrong: #c2362f;
  --accent: #2563a8;
}
* { box-sizing: border-box; }
body {
  margin: 0; background: #f5f6f8; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main { max-width: 1180px; margin: 0 auto; padding: 2.2rem 1.6rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1.2rem; letter-spacing: -0.01em; }
h2 { font-size: 1.15rem; margin: 0 0 .7rem; }
section {
  background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 1.2rem 1.4rem;
  margin: 1.1rem 0;
}
.note { color: var(--soft); font-size: .86rem; margin: .5rem 0 .8rem; max-width: 75ch; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: .9rem; }
.tiles div {
  background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: .9rem 1.2rem; display: grid;
}
.tiles b { font-size: 1.9rem; line-height: 1.25; font-weight: 650; font-variant-numeric: tabular-nums; }
.tiles span { font-weight: 600; }
.tiles small, td small { color: var(--soft); }
dl {
  display: grid; grid-template-columns: max-content 1fr max-content 1fr; gap: .15rem 1.4rem; margin: 1.1rem .2rem;
  font-size: .92rem;
}
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td {
  padding: .36rem .8rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap;
}
tbody th { text-align: left; font-weight: 500; padding-left: 0; }
thead th { font-size: .86rem; color: var(--soft); font-weight: 600; }
thead th.group { text-align: center; color: var(--ink); }
td small { display: block; font-size: .74rem; line-height: 1.2; }
.curves { width: 100%; height: auto; display: block; }
.query { border-top: 1px solid var(--line); padding: .8rem 0 .5rem; }
.query:first-of-type { border-top: 0; }
.query p { margin: 0 0 .5rem; font-weight: 550; overflow-wrap: anywhere; }
.query p small { font-weight: 400; color: var(--soft); white-space: nowrap; }
.row { display: grid; grid-template-columns: repeat(6, 1fr); gap: .8rem; }
.pair { display: grid; grid-template-columns: 1fr 5fr; gap: .8rem; }
figure { margin: 0; }
.frame { display: block; position: relative; border-radius: 5px; overflow: hidden; background: #eceff3; }
.frame { line-height: 0; }
.frame img { width: 100%; height: auto; }
.row .frame img, .pair .frame img { aspect-ratio: 1; object-fit: contain; }
.frame img.heat { position: absolute; inset: 0; height: 100%; }
.frame .point {
  position: absolute; width: 12px; height: 12px; margin: -6px; border: 2.5px solid #fff; border-radius: 50%;
  box-shadow: 0 0 0 1.5px #1f2630;
}
.frame i { position: absolute; box-shadow: 0 0 0 1px #fff9; border-radius: 2px; }
.frame i, .key { border: 2.5px solid currentcolor; }
.frame .object { color: var(--hue); }
.frame .object b {
  position: absolute; left: -2.5px; bottom: 100%; padding: 0 .3em; background: var(--hue); color: #fff;
  font: 600 .7rem/1.35 system-ui, sans-serif;
}
.frame .object.high b { bottom: auto; top: 0; left: 0; }
.hue0 { --hue: #c2185b; } .hue1 { --hue: #1565c0; } .hue2 { --hue: #2e7d32; }
.hue3 { --hue: #8e24aa; } .hue4 { --hue: #b45309; } .hue5 { --hue: #00696e; }
.frame .predicted, .key.predicted { border-style: dashed; }
i.true, .key.true { color: #19c05b; }
i.predicted, .key.predicted { color: #ff3d7f; }
.key { display: inline-block; width: 1.3em; height: .85em; vertical-align: -1px; margin: 0 .35em 0 .8em; }
figcaption { font-size: .78rem; line-height: 1.35; color: var(--soft); margin-top: .3rem; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); font-weight: 550; }
figure.right .frame { outline: 3px solid var(--right); outline-offset: 1px; }
figure.right figcaption, li.right { color: var(--right); font-weight: 600; }
li.wrong { color: var(--wrong); }
li.chosen { font-weight: 600; }
.yes { color: var(--right); } .no { color: var(--wrong); }
figcaption .yes { color: var(--right); } figcaption .no { color: var(--wrong); }
figcaption small { margin-left: .4rem; }
.answer { margin-top: .15rem; font-size: .86rem; color: var(--soft); }
.twins { display: grid; grid-template-columns: repeat(2, minmax(0, 380px)); gap: .9rem 1.6rem; }
.twins p { margin: 0 0 .5rem; font-weight: 550; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: .3rem; }
.two .frame img { aspect-ratio: 1; object-fit: contain; }
.scene { display: grid; grid-template-columns: minmax(220px, 2fr) 5fr; gap: 1.2rem; align-items: start; }
.scene ol { margin-bottom: .7rem; }
figure.apart { padding-left: .8rem; border-left: 1px dashed #b9c1cb; }
ol { margin: 0; padding-left: 1.6rem; }
li small { color: var(--soft); font-weight: 400; margin-left: .4rem; }
li.apart { list-style: none; margin-top: .35rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 1.1rem .9rem; }
.bars { width: 100%; table-layout: fixed; }
.bars th:nth-child(1) { width: 40%; text-align: left; padding-left: 0; white-space: normal; overflow-wrap: anywhere; }
.bars th:nth-child(3) { width: 7rem; } .bars th:nth-child(4) { width: 7.5rem; }
.bars td.bar { padding-right: 0; }
.bars td.bar i { display: block; height: .7rem; min-width: 2px; border-radius: 2px; background: var(--accent); }
.bars td.lost i { background: #d98a86; } .bars td.kept i { background: #6bb38a; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 1.2rem 1.6rem; }
.charts svg { width: 100%; height: auto; display: block; }
.charts text { font-size: 10px; fill: var(--soft); } .charts rect { fill: var(--accent); }
.charts line { stroke: var(--line); }
.lists { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 1.2rem 1.8rem; }
h3 { font-size: .95rem; margin: 1.1rem 0 .5rem; }
h3 small { color: var(--soft); font-weight: 400; margin-left: .4rem; }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(115px, 1fr)); gap: .9rem .8rem; }
.samples.words { grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); }
.samples .frame img { aspect-ratio: 1; object-fit: contain; }
.samples .veiled img { filter: blur(14px); }
.samples figure.words { border-left: 2px solid var(--line); padding-left: .6rem; }
@media print { body { background: #fff; } section { break-inside: avoid-page; } }
"""
