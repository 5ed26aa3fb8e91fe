// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/headgate/headgate/e2e/cluster/internal/config"
	"github.com/headgate/headgate/e2e/cluster/internal/network"
	"github.com/headgate/headgate/e2e/cluster/internal/plan"
	"github.com/headgate/headgate/e2e/cluster/internal/process"
	"github.com/headgate/headgate/e2e/cluster/internal/progress"
)

// pollInterval is how often a part is asked whether it is ready.
const pollInterval = 50 * time.Millisecond

// environment is that of every component; the caller's is not passed on.
var environment = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

// starter starts the components of one cluster and notices when one of them ends.
type starter struct {
	cluster    plan.Cluster
	log        *progress.Log
	kubernetes string

	mu     sync.Mutex
	exited map[string]process.Exited
}

func newStarter(c plan.Cluster, log *progress.Log, kubernetes string) *starter {
	return &starter{cluster: c, log: log, kubernetes: kubernetes, exited: map[string]process.Exited{}}
}

// start starts those of the components that don't run.
func (s *starter) start(names ...string) error {
	for _, component := range config.Components(s.cluster, s.kubernetes) {
		if !slices.Contains(names, component.Name) {
			continue
		}
		record, err := process.Load(s.cluster.Record(component.Name))
		if err != nil {
			return err
		}
		if record.Alive() {
			continue
		}
		if err := s.startOne(component); err != nil {
			return err
		}
	}
	return nil
}

func (s *starter) startOne(component config.Component) error {
	return network.Do(s.cluster, func() error {
		record, exited, err := process.Start(process.Spec{
			Args: component.Args,
			Dir:  s.cluster.Dir(),
			Log:  s.cluster.Log(component.Name),
			Env:  append(slices.Clone(environment), "HOME="+s.cluster.Dir()),
		})
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.exited[component.Name] = exited
		s.mu.Unlock()
		return record.Save(s.cluster.Record(component.Name))
	})
}

// wait repeats a check until it succeeds. It gives up when time is over or a component has ended.
func (s *starter) wait(ctx context.Context, what string, check func(context.Context) error) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if ended := s.ended(); ended != nil {
			return ended
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; the last answer was: %w", what, context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}

// ended says which of the components that were started here has ended, and shows why.
func (s *starter) ended() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, exited := range s.exited {
		select {
		case err := <-exited:
			delete(s.exited, name)
			path := s.cluster.Log(name)
			return fmt.Errorf("%s ended (%w); the end of %s:\n%s", name, err, path, process.Tail(path, 15))
		default:
		}
	}
	return nil
}

// dial succeeds when something listens on the socket.
func dial(socket string) error {
	connection, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return err
	}
	return connection.Close()
}
