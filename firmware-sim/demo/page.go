package demo

import "html/template"

// pageTemplate is the report: one file, nothing from elsewhere, readable in
// light and dark.
var pageTemplate = template.Must(template.New("report").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Packetboat demo</title>
<style>
:root { color-scheme: light dark; --bg: #fff; --fg: #1c2430; --soft: #667085; --grid: #e4e7ec; --a: #1565c0; --b: #c2410c; --c: #6d28d9; --mark: #b42318; --ok: #067647; }
@media (prefers-color-scheme: dark) { :root { --bg: #12161c; --fg: #e6e9ee; --soft: #98a2b3; --grid: #2b333f; --a: #64b5f6; --b: #fb923c; --c: #b79af7; --mark: #f97066; --ok: #47cd89; } }
body { background: var(--bg); color: var(--fg); font: 16px/1.5 system-ui, sans-serif; max-width: 960px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .2rem; }
p.soft, .legend { color: var(--soft); } .ok { color: var(--ok); } .bad { color: var(--mark); }
.verdict { font-size: 1.25rem; font-weight: 600; }
table { border-collapse: collapse; } td { padding: .15rem 1.2rem .15rem 0; vertical-align: top; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 11px; } svg text.mark { fill: var(--mark); }
.grid { stroke: var(--grid); } line.mark { stroke: var(--mark); stroke-dasharray: 4 3; }
polyline { fill: none; stroke-width: 1.8; } polyline.a { stroke: var(--a); } polyline.b { stroke: var(--b); } polyline.c { stroke: var(--c); }
.legend span::before { content: "\2014\00a0"; font-weight: 700; } .legend .a::before { color: var(--a); } .legend .b::before { color: var(--b); } .legend .c::before { color: var(--c); }
.legend span { margin-right: 1.2rem; }
</style>
</head>
<body>
<h1>Packetboat demo</h1>
<p class="soft">{{.What}} &middot; {{.When}} &middot; {{.Machine}}</p>
{{if .OK}}<p class="verdict ok">{{.Report.Acknowledged}} messages were acknowledged; each is in the log exactly once{{if .Undecidable}}, as far as equal payloads let one see{{end}}.</p>
{{with .Report.QoS2}}{{if .Messages}}<p class="ok">With QoS 2: {{.Acknowledged}} messages were acknowledged, {{.Resent}} of them were sent more than once, and none is double{{$.Several}}.</p>{{end}}{{end}}
{{else}}<p class="verdict bad">A promise is broken.</p>{{end}}
<p>The sensors publish to an edge, with QoS 1 and QoS 2 and over TCP, TLS and WebSocket. The edge stores every message before it says thank you and sends it over a bad link (500&nbsp;kB/s, 40&nbsp;ms there and back, one packet in 200 lost) to a hub, which appends it to its log. On the way the link becomes a black hole, the edge is killed with <code>kill -9</code> and started again, several times, and the link comes back.</p>
<table>
<tr><td>acknowledged to the sensors</td><td class="n">{{.Report.Acknowledged}}</td><td></td></tr>
<tr><td>records in the log</td><td class="n">{{.Report.Records}}</td><td>{{.Report.Copies}} of them copies that the sensors themselves sent again</td></tr>
<tr><td>missing</td><td class="n">{{.Report.Missing}}</td><td>acknowledged and not in the log</td></tr>
<tr><td>double</td><td class="n">{{.Report.Double}}</td><td>more often in the log than sent; with QoS 2, than sessions it was sent in</td></tr>
<tr><td>unexpected</td><td class="n">{{.Unexpected}}</td><td>in the log and never sent</td></tr>
<tr><td>out of order</td><td class="n">{{.Report.OutOfOrder}}</td><td></td></tr>
<tr><td>undecidable</td><td class="n">{{.Undecidable}}</td><td>left open by equal payloads</td></tr>
<tr><td>sent again by the sensors</td><td class="n">{{.Resent}}</td><td>on {{.Connections}} connections; the edge ran {{.EdgeRuns}} times</td></tr>
<tr><td>bytes per message on the link</td><td class="n">{{.PerUp}}</td><td>and {{.PerDown}} back; everything that TCP carried, over all connections</td></tr>
<tr><td>the same as plain MQTT</td><td class="n">{{.Plain}}</td><td>a PUBLISH with QoS 1 for each message, sent once</td></tr>
<tr><td>the hub's own verifier</td><td></td><td>{{.HubVerify}}</td></tr>
<tr><td>one record removed from a copy</td><td></td><td>{{.Tampered}}</td></tr>
<tr><td>one QoS 2 record doubled in a copy</td><td></td><td>{{.Doubled}}</td></tr>
</table>
{{range .Pictures}}<h2>{{.Title}}</h2>
<p class="legend">{{range .Legend}}<span class="{{.Class}}">{{.Name}}</span>{{end}} {{.Unit}}</p>
{{.SVG}}
{{end}}
</body>
</html>
`))
