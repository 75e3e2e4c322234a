package report

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"example.com/ttrpc-starter/bench/result"
)

// chart is a picture and what is said of it where it is shown. The text within is English, for its readers share the
// picture.
type chart struct {
	file          string
	name, caption phrase
	svg           []byte
}

// Okabe and Ito's colours, which the colour-blind tell apart; their yellow is too pale for lines on white.
var (
	black     = color.NRGBA{0x00, 0x00, 0x00, 0xff}
	orange    = color.NRGBA{0xe6, 0x9f, 0x00, 0xff}
	skyBlue   = color.NRGBA{0x56, 0xb4, 0xe9, 0xff}
	green     = color.NRGBA{0x00, 0x9e, 0x73, 0xff}
	blue      = color.NRGBA{0x00, 0x72, 0xb2, 0xff}
	vermilion = color.NRGBA{0xd5, 0x5e, 0x00, 0xff}
	purple    = color.NRGBA{0xcc, 0x79, 0xa7, 0xff}
	grey      = color.NRGBA{0x77, 0x77, 0x77, 0xff}
	pale      = color.NRGBA{0xe4, 0xe4, 0xe4, 0xff}
)

// style is how a contender looks in every chart; what belongs together shares a colour, the shape tells it apart.
type style struct {
	color color.Color
	shape draw.GlyphDrawer
	dash  []vg.Length
	thick bool
}

var (
	dashed = []vg.Length{vg.Points(6), vg.Points(3)}
	dotted = []vg.Length{vg.Points(1.5), vg.Points(3)}
	styles = map[string]style{
		Ours:       {blue, draw.CircleGlyph{}, nil, true},
		OursFloor:  {blue, draw.RingGlyph{}, dashed, true},
		Stock:      {vermilion, draw.BoxGlyph{}, nil, false},
		StockFloor: {vermilion, draw.SquareGlyph{}, dashed, false},
		GRPC:       {black, draw.PyramidGlyph{}, nil, false},
		GRPCFloor:  {black, draw.TriangleGlyph{}, dashed, false},
	}
	others = []style{
		{green, draw.RingGlyph{}, nil, false},
		{green, draw.SquareGlyph{}, dashed, false},
		{purple, draw.PlusGlyph{}, nil, false},
		{orange, draw.CrossGlyph{}, nil, false},
		{grey, draw.TriangleGlyph{}, dotted, false},
		{skyBlue, draw.PyramidGlyph{}, dotted, false},
	}
)

// style returns the same style for a contender in all charts of a run.
func (n numbers) style(contender string) style {
	if s, ok := styles[contender]; ok {
		return s
	}
	i := 0
	for _, name := range n.compared() {
		if name == contender {
			break
		}
		if _, ok := styles[name]; !ok {
			i++
		}
	}
	return others[i%len(others)]
}

// compared returns the contenders without the controls, which repeat one of them.
func (n numbers) compared() []string {
	return slices.DeleteFunc(n.contenders(), n.repeats)
}

// repeats says whether the contender is a control.
func (n numbers) repeats(contender string) bool {
	return slices.ContainsFunc(n.Contenders, func(c result.Contender) bool {
		return c.Name == contender && c.ControlOf != ""
	})
}

// chartFiles are the charts that a run may have.
var chartFiles = []string{
	"calls-by-callers.svg", "calls-by-payload.svg", "cpu-per-call.svg", "footprint.svg", "idle-connections.svg",
}

// charts draws what the run has numbers for.
func (n numbers) charts() ([]chart, error) {
	var charts []chart
	for _, draw := range []func() (chart, bool, error){
		n.byCallers, n.byPayload, n.cpuChart, n.footprintChart, n.idleChart,
	} {
		c, ok, err := draw()
		if err != nil {
			return nil, fmt.Errorf("draw %s: %w", c.file, err)
		}
		if ok {
			charts = append(charts, c)
		}
	}
	return charts, nil
}

// reference is the contender that the charts compare with.
func (n numbers) reference() string {
	for _, name := range []string{GRPC, Stock, Ours} {
		if slices.Contains(n.contenders(), name) {
			return name
		}
	}
	return ""
}

func (n numbers) byCallers() (chart, bool, error) {
	c := chart{file: "calls-by-callers.svg", name: phrase{"Calls per second by callers", "並列数ごとの呼び出し数/秒"}, caption: say(
		"Calls per second relative to %s over the number of concurrent callers, for empty and for 64 KiB messages. "+
			"Bars are quartiles over rounds; within the grey band a difference is noise.",
		"%s を 1 とした呼び出し数/秒。横軸は並列数（同時に呼び出す数）で、左は空、右は 64 KiB のメッセージです。エラーバーはラウンド間の四分位範囲、灰色の帯はノイズの範囲を表します。",
		n.title(n.reference()))}
	var panels []panel
	for _, bytes := range []int{0, 64 << 10} {
		p := panel{title: "payload " + payload(bytes), x: "concurrent callers on one connection"}
		for _, k := range n.callersOf(group{"unix", "unary", bytes}) {
			p.cases = append(p.cases, unary(bytes, k))
			p.labels = append(p.labels, fmt.Sprint(k))
		}
		panels = append(panels, p)
	}
	return n.lines(c, "Calls per second, Unix socket, unary", panels)
}

func (n numbers) byPayload() (chart, bool, error) {
	name := phrase{"Calls per second by payload", "メッセージの大きさごとの呼び出し数/秒"}
	c := chart{file: "calls-by-payload.svg", name: name, caption: say(
		"Calls per second relative to %s over the size of the message in each direction, with 1 and with 16 callers. "+
			"Bars are quartiles over rounds; within the grey band a difference is noise.",
		"%s を 1 とした呼び出し数/秒。横軸は片方向のメッセージの大きさで、左は並列数 1、右は並列数 16 です。エラーバーはラウンド間の四分位範囲、灰色の帯はノイズの範囲を表します。",
		n.title(n.reference()))}
	var panels []panel
	for _, k := range []int{1, 16} {
		p := panel{title: callers(k).en, x: "payload in each direction"}
		for _, g := range n.groups() {
			if g.transport == "unix" && g.kind == "unary" && slices.Contains(n.callersOf(g), k) {
				p.cases = append(p.cases, g.with(k))
			}
		}
		slices.SortFunc(p.cases, func(a, b result.Case) int { return a.Payload - b.Payload })
		for _, c := range p.cases {
			p.labels = append(p.labels, payload(c.Payload))
		}
		panels = append(panels, p)
	}
	return n.lines(c, "Calls per second, Unix socket, unary", panels)
}

// panel is one set of axes; its cases stand side by side.
type panel struct {
	title, x string
	cases    []result.Case
	labels   []string
}

const (
	width  = 11 * vg.Inch
	height = 5.2 * vg.Inch
)

const noiseBand = "noise (control)"

// lines draws the panels side by side on one scale; a panel of fewer than two cases shows nothing that a table
// does not, and is left out.
func (n numbers) lines(c chart, title string, panels []panel) (chart, bool, error) {
	panels = slices.DeleteFunc(panels, func(p panel) bool { return len(p.cases) < 2 })
	reference := n.reference()
	if len(panels) == 0 || reference == "" {
		return c, false, nil
	}
	canvas := paint(fmt.Sprintf("%s (log scale; %s = 1)", title, n.title(reference).en), height)
	legend := plot.NewLegend()
	legend.Left, legend.Top = true, true
	legend.TextStyle = words(11)
	legend.ThumbnailWidth = vg.Points(34)
	legend.Padding = vg.Points(4)
	side := legend.TextStyle.Width(noiseBand)
	for _, name := range n.compared() {
		side = max(side, legend.TextStyle.Width(n.title(name).en))
	}
	side += legend.ThumbnailWidth + vg.Points(20)

	low, high := 0.9, 1.1
	var plots []*plot.Plot
	var titles []string
	for i, panel := range panels {
		titles = append(titles, panel.title)
		p := axes(panel.x)
		if i == 0 {
			p.Y.Label.Text = "calls/s relative to " + n.title(reference).en
		}
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.TickerFunc(ratioTicks)
		p.X.Tick.Marker = nominal(panel.labels)
		p.X.Min, p.X.Max = -0.4, float64(len(panel.cases))-0.6
		p.Add(horizontal{})

		if band := n.band(panel); band != nil {
			p.Add(band)
			if i == 0 {
				legend.Add(noiseBand, band)
			}
		}
		for j, name := range n.compared() {
			s := n.style(name)
			line := draw.LineStyle{Color: s.color, Width: vg.Points(1.3), Dashes: s.dash}
			if s.thick {
				line.Width = vg.Points(2.4)
			}
			glyph := draw.GlyphStyle{Color: s.color, Radius: vg.Points(3.6), Shape: s.shape}
			if i == 0 {
				legend.Add(n.title(name).en, &plotter.Line{LineStyle: line}, &plotter.Scatter{GlyphStyle: glyph})
			}
			// A step to the side keeps the error bars of neighbours apart.
			shift := (float64(j)/float64(max(1, len(n.compared())-1)) - 0.5) * 0.22
			for _, run := range n.runs(panel, name, reference, shift) {
				for k := range run.XYs {
					low, high = min(low, run.XYs[k].Y-run.YErrors[k].Low), max(high, run.XYs[k].Y+run.YErrors[k].High)
				}
				bars, err := plotter.NewYErrorBars(run)
				if err != nil {
					return c, false, err
				}
				bars.LineStyle = draw.LineStyle{Color: s.color, Width: vg.Points(0.8)}
				bars.CapWidth = vg.Points(4)
				p.Add(&plotter.Line{XYs: run.XYs, LineStyle: line}, bars,
					&plotter.Scatter{XYs: run.XYs, GlyphStyle: glyph})
			}
		}
		plots = append(plots, p)
	}
	for _, p := range plots {
		p.Y.Min, p.Y.Max = low/1.08, high*1.08
	}
	tile(plots, titles, draw.Crop(canvas.body, 0, -side, 0, 0))
	legend.Draw(draw.Crop(canvas.body, canvas.body.Size().X-side+vg.Points(12), 0, 0, -vg.Points(24)))
	var err error
	c.svg, err = canvas.svg()
	return c, true, err
}

// points are what an error bar takes.
type points struct {
	plotter.XYs
	plotter.YErrors
}

// runs returns the contender's points; where a case has none the line is broken, because nothing was measured.
func (n numbers) runs(p panel, contender, reference string, shift float64) []points {
	var runs []points
	broken := true
	for i, c := range p.cases {
		e := Estimate{Median: 1, Low: 1, High: 1, Rounds: len(n.good(c, contender))}
		if contender != reference {
			e = n.compare(c, contender, reference, callsPerSecond).Estimate
		}
		if e.Rounds == 0 {
			broken = true
			continue
		}
		if broken {
			runs = append(runs, points{})
			broken = false
		}
		last := &runs[len(runs)-1]
		last.XYs = append(last.XYs, plotter.XY{X: float64(i) + shift, Y: e.Median})
		last.YErrors = append(last.YErrors, struct{ Low, High float64 }{e.Median - e.Low, e.High - e.Median})
	}
	return runs
}

// band is the noise around 1, or nil if it is unknown.
func (n numbers) band(p panel) *plotter.Polygon {
	var up, down plotter.XYs
	for i, c := range p.cases {
		f := n.noise(c, callsPerSecond)
		if f == 0 {
			return nil
		}
		for _, x := range []float64{float64(i) - 0.4, float64(i) + 0.4} {
			up = append(up, plotter.XY{X: x, Y: f})
			down = append(down, plotter.XY{X: x, Y: 1 / f})
		}
	}
	slices.Reverse(down)
	band, err := plotter.NewPolygon(append(up, down...))
	if err != nil {
		return nil
	}
	band.Color, band.LineStyle = pale, draw.LineStyle{}
	return band
}

// bar is one row: what is stacked from the left, the text behind it, and the spread of the whole.
type bar struct {
	name   string
	parts  []float64
	spread Estimate
	label  string
}

// bars is one set of rows.
type bars struct {
	title, x string
	rows     []bar
}

// rows draws horizontal bars; parts names what is stacked, empty for a single part.
func rows(c chart, title string, parts []string, panels []bars) (chart, bool, error) {
	most := 0
	for _, b := range panels {
		most = max(most, len(b.rows))
	}
	if most == 0 {
		return c, false, nil
	}
	fills := []color.Color{blue, orange}
	tall := vg.Length(most)*vg.Points(23) + 1.6*vg.Inch
	canvas := paint(title, tall)
	var plots []*plot.Plot
	var titles []string
	for _, b := range panels {
		titles = append(titles, b.title)
		p := axes(b.x)
		var names []string
		largest := 0.0
		values := make([]plotter.Values, max(1, len(parts)))
		labels := plotter.XYLabels{}
		spreads := struct {
			plotter.XYs
			plotter.XErrors
		}{}
		for i := range b.rows {
			row := b.rows[len(b.rows)-1-i] // the first is on top
			names = append(names, row.name)
			end := 0.0
			for k := range values {
				v := 0.0
				if k < len(row.parts) {
					v = row.parts[k]
				}
				values[k] = append(values[k], v)
				end += v
			}
			y := float64(i)
			if row.spread.Rounds > 1 {
				spreads.XYs = append(spreads.XYs, plotter.XY{X: row.spread.Median, Y: y})
				spreads.XErrors = append(spreads.XErrors, struct{ Low, High float64 }{
					row.spread.Median - row.spread.Low, row.spread.High - row.spread.Median,
				})
			}
			end = max(end, row.spread.High)
			labels.XYs = append(labels.XYs, plotter.XY{X: end, Y: y})
			labels.Labels = append(labels.Labels, row.label)
			largest = max(largest, end)
		}
		var under *plotter.BarChart
		for k, v := range values {
			chart, err := plotter.NewBarChart(v, vg.Points(13))
			if err != nil {
				return c, false, err
			}
			chart.Horizontal, chart.Color, chart.LineStyle.Width = true, fills[k], 0
			if under != nil {
				chart.StackOn(under)
			}
			under = chart
			p.Add(chart)
			if len(parts) > 0 {
				p.Legend.Add(parts[k], chart)
			}
		}
		if len(spreads.XYs) > 0 {
			whiskers, err := plotter.NewXErrorBars(spreads)
			if err != nil {
				return c, false, err
			}
			whiskers.CapWidth = vg.Points(6)
			p.Add(whiskers)
		}
		text, err := plotter.NewLabels(labels)
		if err != nil {
			return c, false, err
		}
		for i := range text.TextStyle {
			text.TextStyle[i] = words(10)
			text.TextStyle[i].YAlign = draw.YCenter
		}
		text.Offset.X = vg.Points(5)
		p.Add(text)
		p.Y.Tick.Marker = nominal(names)
		p.Y.Min, p.Y.Max = -0.6, float64(len(names))-0.4
		if len(parts) > 0 {
			p.Y.Max += 0.9 // the legend's line
			p.Legend.Top = true
			p.Legend.TextStyle = words(11)
			p.Legend.Padding = vg.Points(4)
		}
		if largest == 0 {
			largest = 1
		}
		p.X.Min, p.X.Max = 0, largest*1.28
		p.X.Tick.Marker = plot.TickerFunc(roundTicks)
		plots = append(plots, p)
	}
	tile(plots, titles, canvas.body)
	var err error
	c.svg, err = canvas.svg()
	return c, true, err
}

func (n numbers) cpuChart() (chart, bool, error) {
	ks := n.callersOf(group{"unix", "unary", 0})
	if len(ks) == 0 {
		return chart{file: "cpu-per-call.svg"}, false, nil
	}
	most := ks[len(ks)-1]
	c := chart{file: "cpu-per-call.svg", name: phrase{"CPU time per call", "呼び出しあたりの CPU 時間"}, caption: say(
		"CPU time of an empty call with %d callers, client and server together. Whiskers are quartiles over rounds.",
		"空のメッセージを並列数 %d で送ったときの、1 呼び出しあたりの CPU 時間（クライアントとサーバーの合計）。ひげはラウンド間の四分位範囲です。", most)}
	b := bars{x: "CPU time per call, user and system (µs)"}
	for _, name := range n.compared() {
		row := bar{name: n.title(name).en}
		if instead, ok := n.state(small(most), name); ok {
			if row.spread = n.estimate(small(most), name, cpuPerCall); row.spread.Median == 0 {
				row.label = notMeasured.en
			} else {
				row.spread = scale(row.spread, 1e-3)
				client := n.estimate(small(most), name, clientCPU).Median
				server := n.estimate(small(most), name, serverCPU).Median
				// The parts' medians need not add up to the whole's.
				part := row.spread.Median / (client + server)
				row.parts = []float64{client * part, server * part}
				row.label = significant(row.spread.Median) + " µs"
			}
		} else {
			row.label = instead.en
		}
		b.rows = append(b.rows, row)
	}
	return rows(c, fmt.Sprintf("CPU per call, Unix socket, unary, payload 0 B, %d callers", most),
		[]string{"client", "server"}, []bars{b})
}

func (n numbers) footprintChart() (chart, bool, error) {
	name := phrase{"Size and idle memory of the servers", "サーバーの大きさとアイドル時メモリー"}
	c := chart{file: "footprint.svg", name: name, caption: phrase{
		"The server's stripped binary, and its memory (RSS) after a first reply. Whiskers are quartiles over starts.",
		"サーバーの strip 済みバイナリの大きさと、最初の応答を返した後のメモリー（RSS）。ひげは起動ごとの四分位範囲です。",
	}}
	const mib = 1.0 / (1 << 20)
	binary := bars{title: "stripped binary", x: "size (MiB)"}
	memory := bars{title: "memory when idle", x: "RSS (MiB)"}
	for _, f := range n.Footprints {
		if n.repeats(f.Contender) {
			continue
		}
		name := n.title(f.Contender).en
		if f.Error != "" {
			binary.rows = append(binary.rows, bar{name: name, label: failed.en})
			memory.rows = append(memory.rows, bar{name: name, label: failed.en})
			continue
		}
		of := func(values []float64) bar {
			values = slices.DeleteFunc(values, func(v float64) bool { return v <= 0 })
			e := estimate(values)
			if e.Rounds == 0 {
				return bar{name: name, label: notMeasured.en}
			}
			return bar{name, []float64{e.Median * mib}, scale(e, mib), size(e.Median)}
		}
		binary.rows = append(binary.rows, of(strippedSize(f)))
		memory.rows = append(memory.rows, of(idleRSS(f)))
	}
	return rows(c, "Servers before any load", nil, []bars{binary, memory})
}

func (n numbers) idleChart() (chart, bool, error) {
	most := 0
	for _, i := range n.Idle {
		if i.Error == "" {
			most = max(most, i.Connections)
		}
	}
	name := phrase{"Memory per idle connection", "アイドル接続 1 本あたりのメモリー"}
	c := chart{file: "idle-connections.svg", name: name, caption: say(
		"What each of %s idle connections adds to the server's memory (RSS), after one call on each.",
		"%s 本のアイドル接続が 1 本あたりに増やすサーバーのメモリー（RSS）。各接続で 1 回呼び出した後の値です。", humanize.Comma(int64(most)))}
	b := bars{x: "RSS per connection (KiB)"}
	for _, name := range n.names() {
		for _, i := range n.Idle {
			if i.Contender != name || i.Connections != most {
				continue
			}
			row := bar{name: n.title(name).en, label: failed.en}
			if values := n.perConnection(name, most); i.Error == "" && len(values) > 0 {
				e := scale(estimate(values), 1.0/(1<<10))
				row = bar{n.title(name).en, []float64{max(0, e.Median)}, e, size(e.Median * (1 << 10))}
			}
			b.rows = append(b.rows, row)
			break
		}
	}
	title := fmt.Sprintf("Memory per idle connection, %s connections", humanize.Comma(int64(most)))
	return rows(c, title, nil, []bars{b})
}

// names returns all contenders of the run except the controls.
func (n numbers) names() []string {
	names := n.compared()
	for _, i := range n.Idle {
		if !slices.Contains(names, i.Contender) && !slices.Contains(n.contenders(), i.Contender) {
			names = append(names, i.Contender)
		}
	}
	return names
}

func scale(e Estimate, by float64) Estimate {
	return Estimate{e.Median * by, e.Low * by, e.High * by, e.Rounds}
}

// canvas is a white sheet with a title, for GitHub's dark pages, too.
type canvas struct {
	sheet *vgsvg.Canvas
	body  draw.Canvas
}

func paint(title string, tall vg.Length) canvas {
	sheet := vgsvg.New(width, tall)
	all := draw.New(sheet)
	all.SetColor(color.White)
	all.Fill(all.Path())
	heading := words(15)
	heading.XAlign, heading.YAlign = draw.XCenter, draw.YTop
	all.FillText(heading, vg.Point{X: all.Center().X, Y: all.Max.Y - vg.Points(8)}, title)
	return canvas{sheet, draw.Crop(all, vg.Points(12), -vg.Points(12), vg.Points(10), -vg.Points(34))}
}

// svg returns the picture. Liberation Sans is what lengths were computed with; Arial and Helvetica are as wide.
func (c canvas) svg() ([]byte, error) {
	var b bytes.Buffer
	if _, err := c.sheet.WriteTo(&b); err != nil {
		return nil, err
	}
	return bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"),
		[]byte("font-family:'Liberation Sans',Arial,Helvetica,sans-serif;")), nil
}

func words(points float64) text.Style {
	return text.Style{
		Color: black, Font: font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, vg.Points(points)),
		Handler: plot.DefaultTextHandler,
	}
}

func axes(x string) *plot.Plot {
	p := plot.New()
	p.X.Label.Text = x
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Label.TextStyle.Font = words(11).Font
		axis.Label.Padding = vg.Points(4)
		axis.Tick.Label.Font = words(10).Font
		axis.Padding = 0
	}
	return p
}

// tile draws the plots side by side, with their axes on one line and each title above its axes, where the plots
// themselves would put them at different heights.
func tile(plots []*plot.Plot, titles []string, on draw.Canvas) {
	tiles := draw.Tiles{Rows: 1, Cols: len(plots), PadX: vg.Points(16), PadTop: vg.Points(18)}
	for i, c := range plot.Align([][]*plot.Plot{plots}, tiles, on)[0] {
		plots[i].Draw(c)
		title := words(12)
		title.XAlign, title.YAlign = draw.XCenter, draw.YTop
		data := plots[i].DataCanvas(c)
		c.FillText(title, vg.Point{X: data.Center().X, Y: on.Max.Y}, titles[i])
	}
}

// nominal puts labels at 0, 1, 2 and so on.
func nominal(labels []string) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for i, l := range labels {
		ticks = append(ticks, plot.Tick{Value: float64(i), Label: l})
	}
	return ticks
}

// ratioTicks halves and doubles.
func ratioTicks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for e := math.Ceil(math.Log2(low)); e <= math.Floor(math.Log2(high)); e++ {
		v := math.Exp2(e)
		ticks = append(ticks, plot.Tick{Value: v, Label: strings.TrimSuffix(fmt.Sprintf("%.4g", v), ".0") + "×"})
	}
	return ticks
}

// roundTicks are five or so.
func roundTicks(low, high float64) []plot.Tick {
	step := math.Pow(10, math.Floor(math.Log10((high-low)/4)))
	for _, by := range []float64{5, 2} {
		if (high-low)/(step*by) >= 4 {
			step *= by
			break
		}
	}
	var ticks []plot.Tick
	for i := math.Ceil(low / step); i*step <= high; i++ {
		ticks = append(ticks, plot.Tick{Value: i * step, Label: fmt.Sprintf("%g", math.Round(i*step*1e6)/1e6)})
	}
	return ticks
}

// horizontal is grid lines at the ticks of Y.
type horizontal struct{}

func (horizontal) Plot(c draw.Canvas, p *plot.Plot) {
	grid := plotter.NewGrid()
	grid.Vertical.Color = nil
	grid.Horizontal = draw.LineStyle{Color: pale, Width: vg.Points(0.7)}
	grid.Plot(c, p)
}
