// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/e2e/cluster/internal/plan"
)

// Folders that containerd, CNI and kubelet share with all others of their kind.
const (
	cniResults = "/var/lib/cni/results"
	logLinks   = "/var/log/containers"
	// shimSockets matches those of shims; containerd has no setting for the place.
	shimSockets = "/run/containerd/s/*"
)

// unmountBelow detaches everything that is mounted below a folder.
func unmountBelow(dir string) error {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, point := range mountsBelow(mountinfo, dir) {
		err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		// What lay on a mount that was detached before has gone with it.
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmounting %q: %w", point, err)
		}
	}
	return nil
}

// octal is how /proc/self/mountinfo writes a space, tab, line break or backslash.
var octal = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// mountsBelow reads /proc/self/mountinfo, see proc(5): the fifth field is the mount point. Later mounts come
// first, as they have to be unmounted.
func mountsBelow(mountinfo []byte, dir string) []string {
	var points []string
	for line := range bytes.Lines(mountinfo) {
		fields := bytes.Fields(line)
		if len(fields) < 5 {
			continue
		}
		point := octal.Replace(string(fields[4]))
		if strings.HasPrefix(point, dir+"/") {
			points = append(points, point)
		}
	}
	slices.Reverse(points)
	return points
}

// removeShimSockets removes the sockets of shims that were killed. Their names are hashes; each
// container's folder holds its own. Those of shims that died earlier are named nowhere any more:
// they are the ones on which nobody listens.
func removeShimSockets(c plan.Cluster) error {
	files, err := filepath.Glob(c.Path("containerd", "state", "io.containerd.runtime.v2.task", "*", "*", "address"))
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range files {
		address, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		socket, isUnix := strings.CutPrefix(strings.TrimSpace(string(address)), "unix://")
		if isUnix {
			errs = append(errs, removeFile(socket))
		}
	}
	sockets, err := filepath.Glob(shimSockets)
	if err != nil {
		return err
	}
	for _, socket := range sockets {
		if deadSocket(socket) {
			errs = append(errs, removeFile(socket))
		}
	}
	return errors.Join(errs...)
}

// deadSocket says whether nobody listens on a socket, and hasn't for some time: a shim that is just
// starting has made its socket before it listens.
func deadSocket(path string) bool {
	info, err := os.Stat(path)
	if err != nil || time.Since(info.ModTime()) < 10*time.Second {
		return false
	}
	return errors.Is(dial(path), unix.ECONNREFUSED)
}

// removeCNIResults removes what CNI noted about pods that nobody tore down.
func removeCNIResults(c plan.Cluster) error {
	entries, err := os.ReadDir(cniResults)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	var errs []error
	for _, name := range cniResultsOf(c.CNINetwork(), names) {
		errs = append(errs, removeFile(filepath.Join(cniResults, name)))
	}
	return errors.Join(errs...)
}

// cniResultsOf selects those of a network's pods: NETWORK-CONTAINER-INTERFACE, and the loopback
// interfaces of the same containers. The container's id is matched in full: the name of one
// network may be the beginning of another's.
func cniResultsOf(network string, names []string) []string {
	pattern := regexp.MustCompile("^" + regexp.QuoteMeta(network) + "-([0-9a-f]{64})-")
	containers := map[string]bool{}
	for _, name := range names {
		if match := pattern.FindStringSubmatch(name); match != nil {
			containers[match[1]] = true
		}
	}
	loopback := regexp.MustCompile("^cni-loopback-([0-9a-f]{64})-lo$")
	var selected []string
	for _, name := range names {
		match := loopback.FindStringSubmatch(name)
		if pattern.MatchString(name) || match != nil && containers[match[1]] {
			selected = append(selected, name)
		}
	}
	return selected
}

// removeLogLinks removes the kubelet's links to the logs of containers.
func removeLogLinks(c plan.Cluster) error {
	entries, err := os.ReadDir(logLinks)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		link := filepath.Join(logLinks, entry.Name())
		target, err := os.Readlink(link)
		if err == nil && strings.HasPrefix(target, c.Dir()+"/") {
			errs = append(errs, removeFile(link))
		}
	}
	return errors.Join(errs...)
}

// empty removes everything in a folder but not the folder.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, entry.Name())))
	}
	return errors.Join(errs...)
}

// removeFile removes a file or an empty folder, which need not be there.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
