// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "charm.land/lipgloss/v2"

// Palette is how things look. The zero value is without colours.
type Palette struct {
	Title, Dim, Strong             lipgloss.Style
	Stable, Candidate, Error, Good lipgloss.Style
	Busy                           lipgloss.Style
}

// colours work on dark and on light backgrounds.
func colours() Palette {
	fg := func(c string) lipgloss.Style { return lipgloss.NewStyle().Foreground(lipgloss.Color(c)) }
	return Palette{
		Title: fg("#FFFFFF").Background(lipgloss.Color("#2F6FB0")).Bold(true),
		Dim:   fg("#7F8790"), Strong: lipgloss.NewStyle().Bold(true),
		Stable: fg("#3B8EEA"), Candidate: fg("#C98A1B"), Error: fg("#D64545"), Good: fg("#2E9E5B"), Busy: fg("#C98A1B"),
	}
}

func (p Palette) mood(m Mood) lipgloss.Style {
	switch m {
	case Good:
		return p.Good
	case Bad:
		return p.Error
	case Busy:
		return p.Busy
	}
	return lipgloss.NewStyle()
}
