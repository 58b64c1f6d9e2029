// Package table collects samples by row and column and writes them as
// Markdown. It must not know how they were taken.
package table

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"example.com/converge/bench/internal/stats"
)

// Sheet is one table: rows of peers, columns of figures, samples in the cells.
// It is not safe for concurrent use.
type Sheet struct {
	// Key is a short name, Title a heading, Note a sentence below it.
	Key, Title, Note string
	// Base is the row with which the others are compared; "" is none.
	Base string

	rows, columns []string
	samples       map[cell][]float64
	failed        map[string]string
}

type cell struct{ row, column string }

// New makes a sheet with columns in the order given.
func New(key, title, note, base string, columns ...string) *Sheet {
	return &Sheet{
		Key: key, Title: title, Note: note, Base: base, columns: columns,
		samples: map[cell][]float64{}, failed: map[string]string{},
	}
}

// Row makes a row, below those that are there.
func (s *Sheet) Row(row string) {
	if !slices.Contains(s.rows, row) {
		s.rows = append(s.rows, row)
	}
}

// Add puts a sample into a cell. A column that the sheet does not have is a
// mistake of the caller, and panics.
func (s *Sheet) Add(row, column string, sample float64) {
	if !slices.Contains(s.columns, column) {
		panic(fmt.Sprintf("table: sheet %s has no column %q", s.Key, column))
	}
	s.Row(row)
	key := cell{row, column}
	s.samples[key] = append(s.samples[key], sample)
}

// Samples are those of a cell, in the order in which they were added.
func (s *Sheet) Samples(row, column string) []float64 { return s.samples[cell{row, column}] }

// Fail notes why a row is not complete. The first reason stays.
func (s *Sheet) Fail(row string, reason error) {
	s.Row(row)
	if s.failed[row] == "" {
		s.failed[row] = reason.Error()
	}
}

// Failed reports whether a row has failed.
func (s *Sheet) Failed(row string) bool { return s.failed[row] != "" }

// Failures are the reasons, a sentence for each row that failed.
func (s *Sheet) Failures() []string {
	var list []string
	for _, row := range s.rows {
		if reason := s.failed[row]; reason != "" {
			list = append(list, fmt.Sprintf("%s, %s: %s", s.Title, row, reason))
		}
	}
	return list
}

// Ratio is a cell's relation to the same column of another row, by rounds; NaN
// where there is none.
func (s *Sheet) Ratio(row, base, column string) float64 {
	return stats.Ratio(s.Samples(row, column), s.Samples(base, column))
}

// Markdown writes the sheet: in each cell the median, the range where there
// are several samples, and the ratio to the base in bold.
func (s *Sheet) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n", s.Title)
	if s.Note != "" {
		fmt.Fprintf(&b, "%s\n\n", s.Note)
	}
	fmt.Fprintf(&b, "| peer | %s |\n|---|%s\n", strings.Join(s.columns, " | "), strings.Repeat("---|", len(s.columns)))
	for _, row := range s.rows {
		fmt.Fprintf(&b, "| %s |", row)
		for _, column := range s.columns {
			fmt.Fprintf(&b, " %s |", s.text(row, column))
		}
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	for _, row := range s.rows {
		if reason := s.failed[row]; reason != "" {
			fmt.Fprintf(&b, "%s failed: %s\n\n", row, reason)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// text is what a cell shows.
func (s *Sheet) text(row, column string) string {
	samples := s.Samples(row, column)
	if len(samples) == 0 {
		return "–"
	}
	sum := stats.Summarise(samples)
	text := Number(sum.Median)
	if sum.N > 1 {
		text += fmt.Sprintf(" (%s–%s)", Number(sum.Min), Number(sum.Max))
	}
	if s.Base != "" && row != s.Base {
		if ratio := s.Ratio(row, s.Base, column); !math.IsNaN(ratio) {
			text += fmt.Sprintf(" **%s×**", Number(ratio))
		}
	}
	return text
}

// Number writes a figure with three digits that count.
func Number(f float64) string {
	size := math.Abs(f)
	switch {
	case math.IsNaN(f):
		return "–"
	case size >= 100:
		return strconv.FormatFloat(f, 'f', 0, 64)
	case size >= 10:
		return strconv.FormatFloat(f, 'f', 1, 64)
	case size >= 0.01 || size == 0:
		return strconv.FormatFloat(f, 'f', 2, 64)
	}
	return strconv.FormatFloat(f, 'g', 2, 64)
}

// MarshalJSON writes all samples: rows of columns of lists.
func (s *Sheet) MarshalJSON() ([]byte, error) {
	rows := map[string]map[string][]float64{}
	for key, samples := range s.samples {
		if rows[key.row] == nil {
			rows[key.row] = map[string][]float64{}
		}
		rows[key.row][key.column] = samples
	}
	return json.Marshal(map[string]any{
		"key": s.Key, "title": s.Title, "base": s.Base, "samples": rows, "failed": s.failed,
	})
}
