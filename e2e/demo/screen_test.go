// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	tea "charm.land/bubbletea/v2"
)

// The screen shows events, Ctrl-C asks for the end, and the terminal is given back.
func TestScreenRuns(t *testing.T) {
	keys, typist := io.Pipe()
	var out bytes.Buffer
	quit := make(chan struct{}, 2) // by the key, and when the screen ends
	viewers := onScreen(
		screenModel{model: NewModel(theUpdates(), "v1", theSteps(), zero), quit: func() { quit <- struct{}{} }},
		tea.WithInput(keys), tea.WithOutput(&out), tea.WithWindowSize(100, 40), tea.WithEnvironment([]string{"TERM=xterm"}))
	go func() {
		viewers.emit(Started{Time: at(1), Index: 1})
		viewers.emit(report(3, 1, 0.1, "errors"))
		_, _ = typist.Write([]byte{3})
		<-quit
		viewers.leave()
	}()
	if err := viewers.run(); err != nil {
		t.Fatal(err)
	}
	const enter, leave = "\x1b[?1049h", "\x1b[?1049l"
	shown := out.String()
	if !strings.Contains(shown, "HEADGATE") || !strings.Contains(shown, "a version that fails 5 %") {
		t.Errorf("the screen did not show the update: %q", shown)
	}
	if strings.Count(shown, enter) != 1 || strings.Count(shown, leave) != 1 {
		t.Errorf("the alternate screen was entered %d times and left %d times, want once each", strings.Count(shown, enter), strings.Count(shown, leave))
	}
}

func TestLinesRun(t *testing.T) {
	var out bytes.Buffer
	viewers := inLines(NewModel(theUpdates(), "v1", theSteps(), zero), &out)
	go func() {
		viewers.emit(Started{Time: at(1), Index: 0})
		viewers.emit(Ended{Time: at(2), Index: 0, Result: Result{Verdict: "Promoted"}})
		viewers.leave()
		viewers.emit(Ticked{Time: at(3)}) // nobody listens any more: must not block
	}()
	if err := viewers.run(); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasPrefix(got, "update 1 of 3: a good version\n") {
		t.Errorf("printed %q", got)
	}
}
