// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Bench makes a table of what `go test -v -bench` prints, with the machine beside it, and the same figures
// as JSON:
//
//	go test -run '^$' -bench . -v ./... | go run . -out bench.json
//
// Lines that it does not understand, such as those of a failure, are passed on. It is a module of its own so that
// nothing that is shipped depends on golang.org/x/perf.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
)

func main() {
	out := flag.String("out", "", "where to write the figures as JSON; empty: nowhere")
	flag.Parse()
	if err := run(os.Stdin, os.Stdout, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer, file string) error {
	here := thisMachine() // before anything is measured
	text, err := follow(in, out)
	if err != nil {
		return fmt.Errorf("reading the results: %w", err)
	}
	r, err := parse(text)
	if err != nil {
		return err
	}
	if len(r.Figures) == 0 {
		return errors.New("nothing was measured")
	}
	here.CPU, here.Envoy = r.Machine.CPU, r.Machine.Envoy
	r.Machine = here
	if _, err := fmt.Fprint(out, "\n", r.table()); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	if file == "" {
		return nil
	}
	return write(file, r)
}

func write(file string, r result) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the figures: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("writing the figures: %w", err)
	}
	if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the figures: %w", err)
	}
	return nil
}

// expected matches what go test says although nobody needs to read it: what is in the table too, or says
// nothing.
var expected = regexp.MustCompile(`^(PASS$|ok\s|\?\s|goos: |goarch: |pkg: |cpu: |envoy: |testing: warning: no tests to run|Benchmark\S*$|--- SKIP: )`)

// follow reads to the end, and shows meanwhile that it goes on.
func follow(in io.Reader, progress io.Writer) ([]byte, error) {
	var all bytes.Buffer
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		all.Write(lines.Bytes())
		all.WriteByte('\n')
		if !expected.Match(lines.Bytes()) {
			fmt.Fprintf(progress, "%s\n", lines.Bytes())
		}
	}
	return all.Bytes(), lines.Err()
}
