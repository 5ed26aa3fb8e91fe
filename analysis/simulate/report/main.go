// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Command report simulates all that docs/analysis.md claims, and writes its tables and pictures. It is a
// module of its own, so that the library that draws does not become a dependency of Headgate.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// section is a table of the document.
type section struct {
	name, title string
	table       func(runs int) string
}

func sections() []section {
	return []section{
		{"goals", "What must hold", goals},
		{"power", "What `maxDuration` costs", power},
		{"margin", "The price of a margin", margins},
		{"peers", "Other tools at the same looks", peers},
		{"noisy", "Healthy candidates in noisy services", noisy},
		{"history", "How long a history must be", histories},
	}
}

func main() {
	runs := flag.Int("runs", 500, "rollouts in each world")
	root := flag.String("root", "../../..", "root of the repository")
	only := flag.String("only", ".", "regular expression: what to simulate; of the rest the last results are taken (out/acceptance)")
	flag.Parse()
	if err := report(*root, *runs, *only); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

// report writes everything.
func report(root string, runs int, only string) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("reading -only: %w", err)
	}
	kept := filepath.Join(root, "out", "acceptance")
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return err
	}
	var b strings.Builder
	for _, s := range sections() {
		file := filepath.Join(kept, s.name+".md")
		if wanted.MatchString(s.name) {
			if err := os.WriteFile(file, []byte(s.table(runs)), 0o644); err != nil {
				return err
			}
		}
		table, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("reading an earlier result: %w", err)
		}
		fmt.Fprintf(&b, "### %s\n\n%s\n", s.title, table)
	}
	if wanted.MatchString("pictures") {
		if err := pictures(filepath.Join(root, "docs", "images")); err != nil {
			return err
		}
	}
	path := filepath.Join(root, "docs", "analysis.md")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	whole, err := splice(string(text), b.String())
	if err != nil {
		return fmt.Errorf("writing the tables into %s: %w", path, err)
	}
	return os.WriteFile(path, []byte(whole), 0o644)
}

// The tables are between these lines.
const (
	begin = "<!-- make acceptance writes from here -->\n"
	end   = "<!-- to here -->\n"
)

// splice replaces what is between the markers.
func splice(text, tables string) (string, error) {
	before, rest, ok := strings.Cut(text, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", fmt.Errorf("the lines %q and %q are not there", strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return before + begin + "\n" + tables + end + after, nil
}
