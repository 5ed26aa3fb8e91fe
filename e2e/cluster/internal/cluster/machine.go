// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/headgate/headgate/e2e/cluster/internal/plan"
)

// machineFile remembers, while there are clusters, the machine's settings from before the first.
var machineFile = filepath.Join(plan.Home, ".machine.json")

// kernelSettings are those that a kubelet changes when it starts. They belong to the whole
// machine, no namespace holds them.
var kernelSettings = []string{
	"/proc/sys/vm/overcommit_memory",
	"/proc/sys/vm/panic_on_oom",
	"/proc/sys/kernel/panic",
	"/proc/sys/kernel/panic_on_oops",
	"/proc/sys/kernel/keys/root_maxkeys",
	"/proc/sys/kernel/keys/root_maxbytes",
}

// kubeletFiles is where every kubelet listens for device plugins, whatever its own folder.
const kubeletFiles = "/var/lib/kubelet"

// machine is what restoreMachine puts back.
type machine struct {
	Kernel map[string]string `json:"kernel"`
	// Kubelet says that there were files of a kubelet before, which are not ours to remove.
	Kubelet bool `json:"kubelet"`
}

// rememberMachine notes the settings of the machine, unless an earlier cluster has.
// The common folder must be locked.
func rememberMachine() error {
	if _, err := os.Stat(machineFile); err == nil {
		return nil
	}
	_, err := os.Stat(kubeletFiles)
	m := machine{Kernel: map[string]string{}, Kubelet: err == nil}
	for _, path := range kernelSettings {
		value, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		m.Kernel[path] = strings.TrimSpace(string(value))
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := os.WriteFile(machineFile+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(machineFile+".new", machineFile)
}

// restoreMachine puts the settings of the machine back when the last cluster has gone.
func restoreMachine() error {
	unlock, err := lock(plan.Home)
	if err != nil {
		return err
	}
	defer unlock()
	if names, err := Names(); err != nil || len(names) > 0 {
		return err
	}
	var m machine
	data, err := os.ReadFile(machineFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && json.Unmarshal(data, &m) != nil {
		m = machine{Kubelet: true}
	}
	var errs []error
	for path, value := range m.Kernel {
		errs = append(errs, os.WriteFile(path, []byte(value), 0o644))
	}
	if m.Kernel != nil && !m.Kubelet {
		errs = append(errs, os.RemoveAll(kubeletFiles))
	}
	// Not RemoveAll: a cluster that is about to be made may have put its folder there.
	errs = append(errs, removeFile(machineFile))
	_ = os.Remove(plan.Home)
	return errors.Join(errs...)
}
