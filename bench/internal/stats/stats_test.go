package stats

import (
	"math"
	"slices"
	"testing"
)

// same compares two numbers, of which NaN equals itself.
func same(a, b float64) bool {
	return math.IsNaN(a) && math.IsNaN(b) || math.Abs(a-b) < 1e-12
}

func TestQuantile(t *testing.T) {
	tests := []struct {
		name    string
		samples []float64
		q, want float64
	}{
		{"none", nil, 0.5, math.NaN()},
		{"one", []float64{7}, 0.99, 7},
		{"odd median", []float64{9, 1, 5}, 0.5, 5},
		{"even median", []float64{4, 1, 3, 2}, 0.5, 2.5},
		{"least", []float64{3, 1, 2}, 0, 1},
		{"greatest", []float64{3, 1, 2}, 1, 3},
		{"between", []float64{0, 10}, 0.25, 2.5},
		{"99th of 101", numbers(101), 0.99, 99},
		{"99th of 11", numbers(11), 0.99, 9.9},
		{"below 0", []float64{1, 2}, -1, 1},
		{"above 1", []float64{1, 2}, 2, 2},
		{"no part", []float64{1, 2}, math.NaN(), math.NaN()},
		{"equal", []float64{2, 2, 2, 2}, 0.3, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := slices.Clone(test.samples)
			if got := Quantile(test.samples, test.q); !same(got, test.want) {
				t.Errorf("Quantile(%v, %v) = %v, want %v", test.samples, test.q, got, test.want)
			}
			if !slices.Equal(test.samples, before) {
				t.Errorf("the samples became %v", test.samples)
			}
		})
	}
}

// numbers are 0 to n-1, the greatest first.
func numbers(n int) []float64 {
	list := make([]float64, n)
	for i := range list {
		list[i] = float64(n - 1 - i)
	}
	return list
}

func TestSummarise(t *testing.T) {
	tests := []struct {
		samples []float64
		want    Summary
	}{
		{nil, Summary{0, math.NaN(), math.NaN(), math.NaN()}},
		{[]float64{3}, Summary{1, 3, 3, 3}},
		{[]float64{5, 1, 4}, Summary{3, 4, 1, 5}},
		{[]float64{-1, 1}, Summary{2, 0, -1, 1}},
	}
	for _, test := range tests {
		got := Summarise(test.samples)
		if got.N != test.want.N || !same(got.Median, test.want.Median) || !same(got.Min, test.want.Min) || !same(got.Max, test.want.Max) {
			t.Errorf("Summarise(%v) = %+v, want %+v", test.samples, got, test.want)
		}
	}
}

func TestRatio(t *testing.T) {
	tests := []struct {
		name          string
		samples, base []float64
		want          float64
	}{
		{"none", nil, []float64{1}, math.NaN()},
		{"one", []float64{3}, []float64{2}, 1.5},
		{"by pairs", []float64{2, 20, 200}, []float64{1, 10, 100}, 2},
		{"median of pairs, not of medians", []float64{1, 2, 30}, []float64{1, 4, 10}, 1},
		{"zero base left out", []float64{1, 4}, []float64{0, 2}, 2},
		{"zero by zero left out", []float64{0}, []float64{0}, math.NaN()},
		{"no partner", []float64{2, 100}, []float64{1}, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := Ratio(test.samples, test.base); !same(got, test.want) {
				t.Errorf("Ratio(%v, %v) = %v, want %v", test.samples, test.base, got, test.want)
			}
		})
	}
}
