package main

import (
	"fmt"
	"net"

	"github.com/moby/buildkit/client/llb"
)

type runOptions struct {
	Args           []string    `json:"args"`
	Shlex          string      `json:"shlex"`
	Mounts         []mount     `json:"mounts"`
	Env            [][2]string `json:"env"`
	Dir            *string     `json:"dir"`
	User           *string     `json:"user"`
	Hostname       *string     `json:"hostname"`
	Network        string      `json:"network"`
	Security       string      `json:"security"`
	Devices        []device    `json:"devices"`
	ExtraHosts     [][2]string `json:"extra_hosts"`
	Ulimits        []ulimit    `json:"ulimits"`
	CgroupParent   *string     `json:"cgroup_parent"`
	Proxy          *proxy      `json:"proxy"`
	ReadonlyRoot   bool        `json:"readonly_root"`
	ValidExitCodes []int       `json:"valid_exit_codes"`
	// Added mounts are added to the ExecState, not given as options.
	AddLater bool `json:"add_later"`
}

type mount struct {
	Kind         string `json:"kind"`
	Target       string `json:"target"`
	Source       *int   `json:"source"`
	Path         string `json:"path"`
	Readonly     bool   `json:"readonly"`
	NoOutput     bool   `json:"no_output"`
	ContentCache *bool  `json:"content_cache"`
	ID           string `json:"id"`
	Sharing      string `json:"sharing"`
	Size         int64  `json:"size"`
	UID          int    `json:"uid"`
	GID          int    `json:"gid"`
	Mode         int    `json:"mode"`
	Optional     bool   `json:"optional"`
	Name         string `json:"name"`
}

type device struct {
	Name     string `json:"name"`
	Optional bool   `json:"optional"`
}

type proxy struct {
	HTTP    string `json:"http"`
	HTTPS   string `json:"https"`
	FTP     string `json:"ftp"`
	NoProxy string `json:"no_proxy"`
	All     string `json:"all"`
}

func (g *graph) run(s *step, base llb.State, options []llb.ConstraintsOpt) (llb.State, error) {
	o := s.Run
	var out []llb.RunOption
	if o.Shlex != "" {
		out = append(out, llb.Shlex(o.Shlex))
	} else {
		out = append(out, llb.Args(o.Args))
	}
	for _, each := range o.Env {
		out = append(out, llb.AddEnv(each[0], each[1]))
	}
	if o.Dir != nil {
		out = append(out, llb.Dir(*o.Dir))
	}
	if o.User != nil {
		out = append(out, llb.User(*o.User))
	}
	if o.Hostname != nil {
		out = append(out, llb.Hostname(*o.Hostname))
	}
	if o.Network != "" {
		out = append(out, llb.Network(netModes[o.Network]))
	}
	if o.Security != "" {
		out = append(out, llb.Security(securityModes[o.Security]))
	}
	for _, each := range o.Devices {
		var device []llb.CDIDeviceOption
		device = append(device, llb.CDIDeviceName(each.Name))
		if each.Optional {
			device = append(device, llb.CDIDeviceOptional)
		}
		out = append(out, llb.AddCDIDevice(device...))
	}
	for _, each := range o.ExtraHosts {
		out = append(out, llb.AddExtraHost(each[0], net.ParseIP(each[1])))
	}
	for _, each := range o.Ulimits {
		out = append(out, llb.AddUlimit(llb.UlimitName(each.Name), each.Soft, each.Hard))
	}
	if o.CgroupParent != nil {
		out = append(out, llb.WithCgroupParent(*o.CgroupParent))
	}
	if p := o.Proxy; p != nil {
		out = append(out, llb.WithProxy(llb.ProxyEnv{
			HTTPProxy: p.HTTP, HTTPSProxy: p.HTTPS, FTPProxy: p.FTP, NoProxy: p.NoProxy, AllProxy: p.All,
		}))
	}
	if o.ReadonlyRoot {
		out = append(out, llb.ReadonlyRootFS())
	}
	if len(o.ValidExitCodes) > 0 {
		out = append(out, llb.ValidExitCodes(o.ValidExitCodes...))
	}
	type later struct {
		mount   mount
		source  llb.State
		options []llb.MountOption
	}
	var added []later
	for _, m := range o.Mounts {
		switch m.Kind {
		case "secret":
			name := m.Target
			secret := []llb.SecretOption{llb.SecretFileOpt(m.UID, m.GID, m.Mode)}
			if m.Optional {
				secret = append(secret, llb.SecretOptional)
			}
			out = append(out, llb.AddSecretWithDest(m.ID, &name, secret...))
			continue
		case "secret_env":
			secret := []llb.SecretOption{llb.SecretAsEnvName(m.Name)}
			if m.Optional {
				secret = append(secret, llb.SecretOptional)
			}
			out = append(out, llb.AddSecretWithDest(m.ID, nil, secret...))
			continue
		case "ssh":
			ssh := []llb.SSHOption{llb.SSHID(m.ID), llb.SSHSocketOpt(m.Target, m.UID, m.GID, m.Mode)}
			if m.Optional {
				ssh = append(ssh, llb.SSHOptional)
			}
			out = append(out, llb.AddSSHSocket(ssh...))
			continue
		}
		source := llb.Scratch()
		if m.Source != nil {
			source = g.states[*m.Source]
		}
		var options []llb.MountOption
		if m.Path != "" {
			options = append(options, llb.SourcePath(m.Path))
		}
		if m.Readonly {
			options = append(options, llb.Readonly)
		}
		if m.NoOutput {
			options = append(options, llb.ForceNoOutput)
		}
		if m.ContentCache != nil {
			mode := llb.MountContentCacheOff
			if *m.ContentCache {
				mode = llb.MountContentCacheOn
			}
			options = append(options, llb.ContentCache(mode))
		}
		switch m.Kind {
		case "cache":
			sharing := map[string]llb.CacheMountSharingMode{
				"shared": llb.CacheMountShared, "private": llb.CacheMountPrivate, "locked": llb.CacheMountLocked,
			}
			options = append(options, llb.AsPersistentCacheDir(m.ID, sharing[m.Sharing]))
		case "tmpfs":
			var size []llb.TmpfsOption
			if m.Size > 0 {
				size = append(size, llb.TmpfsSize(m.Size))
			}
			options = append(options, llb.Tmpfs(size...))
		case "bind":
		default:
			return llb.State{}, fmt.Errorf("unknown mount %q", m.Kind)
		}
		if o.AddLater {
			added = append(added, later{m, source, options})
		} else {
			out = append(out, llb.AddMount(m.Target, source, options...))
		}
	}
	for _, each := range options {
		out = append(out, each)
	}
	exec := base.Run(out...)
	place := len(g.states)
	for _, each := range added {
		g.mounts[fmt.Sprint(place, " ", each.mount.Target)] = exec.AddMount(each.mount.Target, each.source, each.options...)
	}
	g.execs[place] = exec
	return exec.State, nil
}
