// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/headgate/headgate/e2e/cluster/internal/build"
	"github.com/headgate/headgate/e2e/cluster/internal/plan"
)

// Import puts an image of the cache into the cluster. One that is
// already there costs nothing.
func Import(ctx context.Context, c plan.Cluster, image build.Image) error {
	marker := c.Path("images", image.Name)
	old, err := os.ReadFile(marker)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if string(old) == image.Hash {
		return nil
	}
	if err := ImportArchive(ctx, c, image.Archive); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(marker), 0o755); err != nil {
		return err
	}
	return os.WriteFile(marker, []byte(image.Hash), 0o644)
}

// ImportArchive puts the images of an archive, as made by `docker save` or buildah, into the cluster.
func ImportArchive(ctx context.Context, c plan.Cluster, archive string) error {
	return ctr(ctx, c, "images", "import", archive)
}

// ctr runs containerd's client in the namespace that Kubernetes uses.
func ctr(ctx context.Context, c plan.Cluster, args ...string) error {
	args = append([]string{"--address", c.ContainerdSocket(), "--namespace", "k8s.io"}, args...)
	if out, err := exec.CommandContext(ctx, "ctr", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("running ctr %q: %w: %s", args, err, out)
	}
	return nil
}
