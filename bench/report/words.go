package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"example.com/ttrpc-starter/bench/result"
)

// Lang is a language of the report.
type Lang string

// The languages.
const (
	English  Lang = "en"
	Japanese Lang = "ja"
)

// phrase is the same thing said in each language, side by side so that neither drifts.
type phrase struct{ en, ja string }

func (p phrase) in(lang Lang) string {
	if lang == Japanese {
		return p.ja
	}
	return p.en
}

// say formats with the arguments of both languages alike; a phrase among them is said in its own language.
func say(en, ja string, args ...any) phrase {
	said := func(lang Lang) []any {
		out := make([]any, len(args))
		for i, a := range args {
			if p, ok := a.(phrase); ok {
				a = p.in(lang)
			}
			out[i] = a
		}
		return out
	}
	return phrase{fmt.Sprintf(en, said(English)...), fmt.Sprintf(ja, said(Japanese)...)}
}

func verbatim(s string) phrase { return phrase{s, s} }

func list(phrases []phrase, en, ja string) phrase {
	var ens, jas []string
	for _, p := range phrases {
		ens, jas = append(ens, p.en), append(jas, p.ja)
	}
	return phrase{strings.Join(ens, en), strings.Join(jas, ja)}
}

// Cells of a table that hold no number.
var (
	failed      = phrase{"failed", "失敗"}
	unsupported = phrase{"not supported", "非対応"}
	notMeasured = phrase{"not measured", "未計測"}
)

// significant writes three digits that mean something, and thousands with commas.
func significant(f float64) string {
	switch size := math.Abs(f); {
	case size >= 100:
		return humanize.Comma(int64(math.Round(f)))
	case size >= 10:
		return strconv.FormatFloat(f, 'f', 1, 64)
	default:
		return strconv.FormatFloat(f, 'f', 2, 64)
	}
}

func duration(nanoseconds float64) string {
	switch {
	case nanoseconds >= float64(time.Second):
		return significant(nanoseconds/float64(time.Second)) + " s"
	case nanoseconds >= float64(time.Millisecond):
		return significant(nanoseconds/float64(time.Millisecond)) + " ms"
	default:
		return significant(nanoseconds/float64(time.Microsecond)) + " µs"
	}
}

func size(bytes float64) string {
	if bytes < 0 {
		return "-" + size(-bytes)
	}
	return humanize.IBytesN(uint64(bytes), 3)
}

func times(f float64) string {
	if f >= 10 {
		return significant(f) + "×"
	}
	return strconv.FormatFloat(f, 'f', 2, 64) + "×"
}

// ratio is times in a sentence.
func ratio(f float64) phrase { return phrase{times(f), strings.TrimSuffix(times(f), "×") + " 倍"} }

// spread writes the quartiles, or nothing for a single round.
func (e Estimate) spread() string {
	if e.Rounds < 2 {
		return ""
	}
	return fmt.Sprintf(" (%s–%s)", strings.TrimSuffix(times(e.Low), "×"), strings.TrimSuffix(times(e.High), "×"))
}

// String writes the ratio. A ≈ marks one that is within the noise, a question mark one whose noise is unknown.
func (d Difference) String() string {
	switch d.Verdict {
	case NotMeasured:
		return "–"
	case None:
		return "≈ " + times(d.Median) + d.spread()
	case Unjudged:
		return times(d.Median) + d.spread() + " ?"
	default:
		return times(d.Median) + d.spread()
	}
}

func (d Difference) phrase() phrase {
	if d.Verdict == NotMeasured {
		return notMeasured
	}
	return verbatim(d.String())
}

// noise writes a floor as the percentage that a ratio may be off.
func noise(floor float64) phrase {
	if floor == 0 {
		return notMeasured
	}
	return verbatim(fmt.Sprintf("±%.1f %%", (floor-1)*100))
}

func payload(bytes int) string {
	if bytes >= 1<<10 {
		return strings.Replace(humanize.IBytes(uint64(bytes)), ".0 ", " ", 1)
	}
	return fmt.Sprintf("%d B", bytes)
}

func callers(n int) phrase {
	if n == 1 {
		return phrase{"1 caller", "並列数 1"}
	}
	return say("%d callers", "並列数 %d", n)
}

func kind(k string) phrase {
	switch k {
	case "unary":
		return phrase{"unary", "単項呼び出し"}
	case "stream":
		return phrase{"stream", "ストリーム"}
	}
	return verbatim(k)
}

func transport(t string) phrase {
	switch t {
	case "unix":
		return phrase{"Unix socket", "UNIX ソケット"}
	case "tcp":
		return phrase{"TCP loopback", "TCP（ループバック）"}
	case "tls":
		return phrase{"TLS over TCP loopback", "TLS（TCP ループバック）"}
	}
	return verbatim(t)
}

func describe(c result.Case) phrase {
	return say("%s, %s, %s, %s", "%s、%s、%s、%s", transport(c.Transport), kind(c.Kind), payload(c.Payload),
		callers(c.Callers))
}
