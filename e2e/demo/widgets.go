// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"strconv"
	"strings"

	"charm.land/lipgloss/v2"
)

// bar is width cells, of which the share is filled; anything above 0 shows at least a sliver.
func bar(share float64, width int, full lipgloss.Style, empty lipgloss.Style) string {
	eighths := int(math.Round(clamp(share) * float64(width) * 8))
	if share > 0 && eighths == 0 {
		eighths = 1
	}
	blocks := []rune(" ▏▎▍▌▋▊▉")
	filled := strings.Repeat("█", eighths/8)
	rest := width - eighths/8
	if part := eighths % 8; part > 0 {
		filled += string(blocks[part])
		rest--
	}
	return full.Render(filled) + empty.Render(strings.Repeat("░", rest))
}

// sparkline draws the newest values that fit, in relation to a maximum.
func sparkline(values []float64, width int, top float64) string {
	levels := []rune("▁▂▃▄▅▆▇█")
	values = values[max(0, len(values)-width):]
	line := strings.Repeat(" ", width-len(values))
	for _, v := range values {
		switch {
		case v <= 0:
			line += " "
		case top <= 0:
			line += string(levels[0])
		default:
			line += string(levels[min(len(levels)-1, int(clamp(v/top)*float64(len(levels))))])
		}
	}
	return line
}

// progress is how far an e-value got on its way from 1 to its threshold, by orders of magnitude: each
// piece of evidence multiplies it. Below 1 it is 0.
func progress(value, threshold string) float64 {
	v, errV := strconv.ParseFloat(value, 64)
	t, errT := strconv.ParseFloat(threshold, 64)
	if errV != nil || errT != nil || v <= 1 || t <= 1 {
		return 0
	}
	return clamp(math.Log(v) / math.Log(t))
}

func clamp(x float64) float64 { return max(0, min(1, x)) }

// fit makes a text exactly as wide as asked, counted in cells.
func fit(text string, width int) string {
	if w := lipgloss.Width(text); w <= width {
		return text + strings.Repeat(" ", width-w)
	}
	runes := []rune(text)
	for len(runes) > 0 && lipgloss.Width(string(runes))+1 > width {
		runes = runes[:len(runes)-1]
	}
	return string(runes) + "…"
}

// grouped writes a number with thin groups of three: 12 345.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}
