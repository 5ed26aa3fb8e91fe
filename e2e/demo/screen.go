// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"time"

	tea "charm.land/bubbletea/v2"
)

// screenModel fits a Model to bubbletea.
type screenModel struct {
	model         Model
	palette       Palette
	width, height int
	// quit ends the work; the screen goes when that has ended (see finished).
	quit func()
}

// finished ends the screen.
type finished struct{}

func (s screenModel) Init() tea.Cmd { return everySecond() }

func (s screenModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		if k := msg.String(); k == "ctrl+c" || k == "q" {
			s.quit()
		}
	case finished:
		return s, tea.Quit
	case Ticked:
		s.model = s.model.Apply(msg)
		return s, everySecond()
	case Event:
		s.model = s.model.Apply(msg)
	}
	return s, nil
}

func (s screenModel) View() tea.View {
	v := tea.NewView("")
	if s.width > 0 {
		v = tea.NewView(Render(s.model, s.palette, s.width, s.height))
	}
	v.AltScreen = true
	return v
}

func everySecond() tea.Cmd {
	return tea.Tick(time.Second, func(t time.Time) tea.Msg { return Ticked{Time: t} })
}

// audience shows events until it is told to leave.
type audience struct {
	// emit shows an event. It may be called from any goroutine, before and after run.
	emit func(Event)
	// run shows; it returns when leave was called.
	run   func() error
	leave func()
}

// onScreen shows on the terminal, or where the options say.
func onScreen(s screenModel, options ...tea.ProgramOption) audience {
	program := tea.NewProgram(s, append(options, tea.WithoutSignalHandler())...)
	return audience{
		emit: func(e Event) { program.Send(e) },
		run: func() error {
			_, err := program.Run()
			s.quit()
			if err != nil {
				return fmt.Errorf("showing the screen: %w", err)
			}
			return nil
		},
		leave: func() { program.Send(finished{}) },
	}
}

// inLines prints what happens.
func inLines(m Model, w io.Writer) audience {
	events, left := make(chan Event, 256), make(chan struct{})
	return audience{
		emit: func(e Event) {
			select {
			case events <- e:
			case <-left:
			}
		},
		run: func() error {
			second := time.NewTicker(time.Second)
			defer second.Stop()
			show := func(e Event) {
				next := m.Apply(e)
				for _, line := range plainLines(m, next) {
					_, _ = fmt.Fprintln(w, line)
				}
				m = next
			}
			for {
				select {
				case e := <-events:
					show(e)
				case t := <-second.C:
					show(Ticked{Time: t})
				case <-left:
					for len(events) > 0 { // what was sent before
						show(<-events)
					}
					return nil
				}
			}
		},
		leave: func() { close(left) },
	}
}
