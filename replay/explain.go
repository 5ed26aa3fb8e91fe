// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// sentence is the answer to a look for people.
func sentence(a answer, message string) string {
	cause := ""
	if a.Cause != "" {
		cause = " (" + a.Cause + ")"
	}
	return fmt.Sprintf("%6s s  step %d, %d %%  %s%s: %s\n", seconds(a.Time), a.Step, a.Weight, a.Verdict, cause, message)
}

// seconds is a time as it is written in a look.
func seconds(t float64) string { return strconv.FormatFloat(t, 'f', -1, 64) }

const (
	chartWidth  = 64
	chartHeight = 9
)

// chart draws the evidence against the candidate, look by look, on a logarithmic scale: from a tenth to
// ten times the threshold.
func chart(path []float64, threshold float64) string {
	if len(path) == 0 || threshold <= 1 {
		return ""
	}
	low, high := -1.0, math.Log10(threshold)+1
	row := func(e float64) int {
		return int(math.Round((min(max(math.Log10(max(e, 1e-300)), low), high) - low) / (high - low) * (chartHeight - 1)))
	}
	columns := shrink(path, chartWidth)
	var b strings.Builder
	fmt.Fprintf(&b, "\nevidence against the candidate in %s; without harm it is expected to stay below 1\n", looks(len(path)))
	for y := chartHeight - 1; y >= 0; y-- {
		label, fill := "", " "
		switch y {
		case row(threshold):
			label, fill = strconv.FormatFloat(threshold, 'g', 4, 64), "-"
		case row(1):
			label, fill = "1", "."
		}
		fmt.Fprintf(&b, "%7s |", label)
		for _, e := range columns {
			if row(e) == y {
				b.WriteString("*")
			} else {
				b.WriteString(fill)
			}
		}
		if y == row(threshold) {
			b.WriteString(" rolls back")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func looks(n int) string {
	if n == 1 {
		return "1 look"
	}
	return strconv.Itoa(n) + " looks"
}

// shrink makes at most n values of a path, the largest of neighbours.
func shrink(path []float64, n int) []float64 {
	if len(path) <= n {
		return path
	}
	out := make([]float64, n)
	for i, e := range path {
		at := i * n / len(path)
		out[at] = max(out[at], e)
	}
	return out
}
