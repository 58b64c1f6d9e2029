// Package stats reduces samples to what a table shows. It must not know what
// was sampled.
package stats

import (
	"math"
	"slices"
)

// Summary is the middle and the range of samples.
type Summary struct {
	// N is how many samples there are; with none the rest is NaN.
	N int
	// Median, Min and Max are in the samples' unit.
	Median, Min, Max float64
}

// Summarise reduces samples, whose order does not matter and is kept.
func Summarise(samples []float64) Summary {
	return Summary{
		N:      len(samples),
		Median: Quantile(samples, 0.5),
		Min:    Quantile(samples, 0),
		Max:    Quantile(samples, 1),
	}
}

// Quantile returns the sample below which the part q, from 0 to 1, of all
// samples lies, between two of them by linear interpolation (the method of
// most statistics programs, R-7). Without samples it is NaN.
func Quantile(samples []float64, q float64) float64 {
	if len(samples) == 0 || math.IsNaN(q) {
		return math.NaN()
	}
	sorted := slices.Clone(samples)
	slices.Sort(sorted)
	at := min(max(q, 0), 1) * float64(len(sorted)-1)
	below := int(at)
	if below == len(sorted)-1 {
		return sorted[below]
	}
	part := at - float64(below)
	return sorted[below]*(1-part) + sorted[below+1]*part
}

// Ratio returns the median of samples[i]/base[i]: the two of one round are
// compared, so that what a machine does over minutes counts for both. A sample
// without a partner, or with one of 0, is left out; if none is left it is NaN.
func Ratio(samples, base []float64) float64 {
	var ratios []float64
	for i := range min(len(samples), len(base)) {
		if r := samples[i] / base[i]; !math.IsNaN(r) && !math.IsInf(r, 0) {
			ratios = append(ratios, r)
		}
	}
	return Quantile(ratios, 0.5)
}
