// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package progress tells the person at the terminal what is being done, for how
// long already, and in the end what took how long.
package progress

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// quietInterval is how often a step that runs long is mentioned where lines can't be rewritten,
// as in a log of continuous integration.
const quietInterval = 30 * time.Second

// Log prints steps. Steps may overlap; only a step that runs alone is rewritten in place.
type Log struct {
	out      io.Writer
	terminal bool
	start    time.Time

	mu    sync.Mutex
	done  []finished
	open  int
	dirty bool // the cursor stands at the end of an unfinished line
}

type finished struct {
	what string
	took time.Duration
}

// New returns a Log that prints to the file, rewriting lines if it is a terminal.
func New(out *os.File) *Log {
	return &Log{out: out, terminal: term.IsTerminal(int(out.Fd())), start: time.Now()}
}

// Step is something that takes time.
type Step struct {
	log   *Log
	what  string
	hint  string
	start time.Time
	stop  chan struct{}
	ended sync.WaitGroup
}

// Start begins a step. The hint says how long it may take; it may be empty.
func (l *Log) Start(what, hint string) *Step {
	s := &Step{log: l, what: what, hint: hint, start: time.Now(), stop: make(chan struct{})}
	l.mu.Lock()
	l.open++
	l.mu.Unlock()
	if hint != "" || l.terminal {
		l.print(s.line(""), l.terminal)
	}
	s.ended.Go(s.tick)
	return s
}

// Note prints a line that is no step.
func (l *Log) Note(format string, args ...any) {
	l.print(fmt.Sprintf(format, args...), false)
}

// Done ends the step; a nil error is success.
func (s *Step) Done(err error) {
	close(s.stop)
	s.ended.Wait()
	took := time.Since(s.start)
	s.log.mu.Lock()
	s.log.open--
	s.log.done = append(s.log.done, finished{s.what, took})
	s.log.mu.Unlock()
	verdict := ""
	if err != nil {
		verdict = " failed"
	}
	s.log.print(s.what+" … "+brief(took)+verdict, false)
}

// Summary prints what took noticeably long, in the order in which it ended.
func (l *Log) Summary(what string) {
	total := time.Since(l.start)
	l.mu.Lock()
	done := l.done
	l.mu.Unlock()
	if len(done) > 1 {
		l.Note("%s after %s, of which", what, brief(total))
		for _, f := range done {
			if f.took >= 100*time.Millisecond {
				l.Note("  %7s  %s", brief(f.took), f.what)
			}
		}
		return
	}
	l.Note("%s after %s", what, brief(total))
}

// tick mentions the step again while it runs.
func (s *Step) tick() {
	interval := quietInterval
	if s.log.terminal {
		interval = time.Second
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
			s.log.mu.Lock()
			alone := s.log.open == 1
			s.log.mu.Unlock()
			if alone || !s.log.terminal {
				s.log.print(s.line(brief(time.Since(s.start))), s.log.terminal)
			}
		}
	}
}

func (s *Step) line(elapsed string) string {
	line := s.what + " …"
	if elapsed != "" {
		line += " " + elapsed
	}
	if s.hint != "" {
		line += " (" + s.hint + ")"
	}
	return line
}

// print writes a line; an open one is overwritten by the next.
func (l *Log) print(line string, open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dirty {
		line = "\r\x1b[K" + line
	}
	if !open {
		line += "\n"
	}
	l.dirty = open
	_, _ = io.WriteString(l.out, line)
}

// brief formats a duration for people: 0.4s, 12.3s, 3m12s.
func brief(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}
