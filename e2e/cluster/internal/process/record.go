// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Record names one process for good: no other has the same id, start and boot.
type Record struct {
	PID int `json:"pid"`
	// StartTicks is when it started, in clock ticks since boot.
	StartTicks uint64 `json:"startTicks"`
	// BootID is the kernel's identifier of this boot.
	BootID string `json:"bootID"`
}

// stat is what /proc/PID/stat says.
type stat struct {
	state      byte
	startTicks uint64
}

// Observe makes the record of a running process.
func Observe(pid int) (Record, error) {
	s, err := readStat(pid)
	if err != nil {
		return Record{}, err
	}
	boot, err := bootID()
	if err != nil {
		return Record{}, err
	}
	return Record{PID: pid, StartTicks: s.startTicks, BootID: boot}, nil
}

// Alive says whether this very process still runs. A zombie doesn't.
func (r Record) Alive() bool {
	if r.PID <= 0 {
		return false
	}
	boot, err := bootID()
	if err != nil || boot != r.BootID {
		return false
	}
	s, err := readStat(r.PID)
	return err == nil && s.startTicks == r.StartTicks && s.state != 'Z' && s.state != 'X'
}

// Save writes the record to a file, whole or not at all.
func (r Record) Save(path string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding the record of process %d: %w", r.PID, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Load reads a record. A file that is missing or damaged is the zero Record, which is
// not alive: what it stood for is found by its Owner.
func Load(path string) (Record, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, nil
	}
	if err != nil {
		return Record{}, err
	}
	var r Record
	if json.Unmarshal(data, &r) != nil {
		r = Record{}
	}
	return r, nil
}

func readStat(pid int) (stat, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, err
	}
	return parseStat(data)
}

// parseStat reads /proc/PID/stat, see proc(5). The command in parentheses may itself hold
// spaces and parentheses; the fields follow the last one.
func parseStat(data []byte) (stat, error) {
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return stat{}, fmt.Errorf("parsing process state %q: no command", data)
	}
	fields := bytes.Fields(data[end+1:])
	const state, startTime = 0, 19 // proc(5) counts from 1, the command is 2: these are its 3 and 22
	if len(fields) <= startTime {
		return stat{}, fmt.Errorf("parsing process state %q: %d fields after the command", data, len(fields))
	}
	ticks, err := strconv.ParseUint(string(fields[startTime]), 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("parsing process state %q: %w", data, err)
	}
	return stat{state: fields[state][0], startTicks: ticks}, nil
}

func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
}
