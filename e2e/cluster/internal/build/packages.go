// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// CNIPlugins is where the distribution puts the programs that set up pod networks.
const CNIPlugins = "/usr/lib/cni"

// distributionPackage is a package of Debian or Ubuntu that a cluster needs.
type distributionPackage struct {
	name string
	// file is what is used of it; the package counts as installed when this is found, in
	// PATH unless it is a whole path.
	file string
	why  string
}

var packages = []distributionPackage{
	{"containerd", "containerd", "runs the containers"},
	{"runc", "runc", "starts each container for containerd"},
	{"containernetworking-plugins", CNIPlugins + "/ptp", "give pods their network"},
	{"nftables", "nft", "kube-proxy programs Services with it"},
	{"buildah", "buildah", "builds images from Dockerfiles"},
}

// Install installs the packages that are missing and says which and why.
func (b Builder) Install(ctx context.Context) (err error) {
	var missing []string
	for _, p := range packages {
		if p.installed() {
			continue
		}
		if len(missing) == 0 {
			b.Log.Note("missing, to be installed from the distribution:")
		}
		b.Log.Note("  %-28s %s", p.name, p.why)
		missing = append(missing, p.name)
	}
	if len(missing) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("installing %s: there is no apt-get; install them by other means", strings.Join(missing, ", "))
	}
	if os.Geteuid() != 0 {
		return errors.New("installing packages needs root")
	}
	step := b.Log.Start("installing "+strings.Join(missing, " "), "about 20s")
	defer func() { step.Done(err) }()
	allow, err := forbidServices()
	if err != nil {
		return err
	}
	defer allow()
	if err := run(apt(ctx, "update")); err != nil {
		return err
	}
	return run(apt(ctx, append([]string{"install", "-y", "--no-install-recommends"}, missing...)...))
}

func (p distributionPackage) installed() bool {
	_, err := exec.LookPath(p.file)
	return err == nil
}

func apt(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	return cmd
}

// forbidServices keeps the packages from starting the services that come with them: the
// cluster runs a containerd of its own. Debian asks the file policy-rc.d; one that is there
// already is someone's decision and stays.
func forbidServices() (allow func(), err error) {
	const policy = "/usr/sbin/policy-rc.d"
	file, err := os.OpenFile(policy, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if errors.Is(err, os.ErrExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	_, err = file.WriteString("#!/bin/sh\nexit 101\n")
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	return func() { _ = os.Remove(policy) }, nil
}
