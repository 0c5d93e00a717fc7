package signals

import (
	"math"
	"math/rand/v2"
	"strconv"
	"time"
)

// kind is how a signal moves.
type kind int

const (
	walking  kind = iota // temperature, pressure: pulled to its rest, one or two decimals
	swinging             // speed, angle, current: a slow swing with noise
	counting             // odometer, energy: only up
	stepping             // gear, mode, state: small integers that rarely change
	flicking             // switches: true or false
)

// wave is one signal's state.
type wave struct {
	kind       kind
	value      float64
	rest       float64
	swing      float64 // amplitude, or the step of a walk
	phase      float64
	frequency  float64 // swings per second
	decimals   int
	resolution float64
}

func newWave(k kind, rng *rand.Rand) wave {
	w := wave{kind: k, phase: rng.Float64(), decimals: 1 + rng.IntN(2)}
	switch k {
	case walking:
		w.rest, w.swing = 20+float64(80*rng.Float64()), 0.05+float64(0.3*rng.Float64())
	case swinging:
		w.rest, w.swing, w.frequency = 1000*rng.Float64(), 5+float64(200*rng.Float64()), 0.005+float64(0.2*rng.Float64())
	case counting:
		w.rest, w.swing = 100_000*rng.Float64(), 0.01+rng.Float64()
	case stepping:
		w.rest, w.decimals = float64(rng.IntN(6)), 0
	case flicking:
		w.decimals = 0
	}
	w.value = w.rest
	w.resolution = math.Pow10(w.decimals)
	return w
}

// next appends the value one period later. The conversions
// keep a product from being fused into the sum around it, as some machines do:
// every machine makes the same values.
func (w *wave) next(dst []byte, rng *rand.Rand, period time.Duration) []byte {
	s := period.Seconds()
	switch w.kind {
	case walking:
		w.value += float64((w.rest-w.value)*min(s, 10)*0.01) + float64(w.swing*(rng.Float64()-0.5))
	case swinging:
		w.phase += float64(w.frequency * s)
		w.phase -= math.Floor(w.phase)
		w.value = w.rest + float64(w.swing*parabola(w.phase)) + float64(w.swing*0.01*(rng.Float64()-0.5))
	case counting:
		w.value += float64(w.swing * s)
	case stepping:
		if rng.IntN(200) == 0 {
			w.value = float64(rng.IntN(8))
		}
	case flicking:
		if rng.IntN(100) == 0 {
			w.value = 1 - w.value
		}
		return strconv.AppendBool(dst, w.value != 0)
	}
	rounded := math.Round(float64(w.value*w.resolution)) / w.resolution
	return strconv.AppendFloat(dst, rounded, 'f', w.decimals, 64)
}

// parabola is close to a sine of the phase 0 to 1 without the last-bit
// differences that math.Sin has between machines.
func parabola(phase float64) float64 {
	x := float64(2*phase) - 1
	return float64(-4*x) * (1 - math.Abs(x))
}
