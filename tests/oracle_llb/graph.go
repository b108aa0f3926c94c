package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	capspb "github.com/moby/buildkit/util/apicaps/pb"
)

// graph is a list of steps, each of which makes a state that later ones refer to by its number.
type graph struct {
	Maps    []*sourceMap `json:"maps"`
	Steps   []step       `json:"steps"`
	Marshal constraints  `json:"marshal"`
	Caps    *[]string    `json:"caps"`

	states []llb.State
	execs  map[int]llb.ExecState
	mounts map[string]llb.State
}

type sourceMap struct {
	Filename string `json:"filename"`
	Language string `json:"language"`
	Data     []byte `json:"data"`
	State    *int   `json:"state"`

	made *llb.SourceMap
}

type constraints struct {
	Name          string            `json:"name"`
	Description   map[string]string `json:"description"`
	IgnoreCache   bool              `json:"ignore_cache"`
	ExportCache   *bool             `json:"export_cache"`
	Platform      *platform         `json:"platform"`
	Require       []string          `json:"require"`
	ProgressGroup *progressGroup    `json:"progress_group"`
	Resources     *resources        `json:"resources"`
	Locations     []location        `json:"locations"`
	LocalUniqueID string            `json:"local_unique_id"`
}

type platform struct {
	OS           string   `json:"os"`
	Architecture string   `json:"architecture"`
	Variant      string   `json:"variant"`
	OSVersion    string   `json:"os_version"`
	OSFeatures   []string `json:"os_features"`
}

type progressGroup struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Weak bool   `json:"weak"`
}

type resources struct {
	Memory     int64  `json:"memory"`
	MemorySwap int64  `json:"memory_swap"`
	CPUShares  uint64 `json:"cpu_shares"`
	CPUPeriod  uint64 `json:"cpu_period"`
	CPUQuota   int64  `json:"cpu_quota"`
	CpusetCpus string `json:"cpuset_cpus"`
	CpusetMems string `json:"cpuset_mems"`
}

type location struct {
	Map int `json:"map"`
	// Each is start line, end line, start character, end character.
	Ranges [][4]int32 `json:"ranges"`
}

type step struct {
	Op          string      `json:"op"`
	Constraints constraints `json:"constraints"`

	State  int    `json:"state"`
	States []int  `json:"states"`
	Text   string `json:"text"`
	Text2  string `json:"text2"`
	Flag   bool   `json:"flag"`

	Image    *imageOptions  `json:"image"`
	Local    *localOptions  `json:"local"`
	Git      *gitOptions    `json:"git"`
	HTTP     *httpOptions   `json:"http"`
	Layout   *layoutOptions `json:"layout"`
	Run      *runOptions    `json:"run"`
	Actions  []action       `json:"actions"`
	Platform *platform      `json:"platform"`
	Ulimit   *ulimit        `json:"ulimit"`
}

type imageOptions struct {
	ResolveMode string `json:"resolve_mode"`
	LayerLimit  *int   `json:"layer_limit"`
	Checksum    string `json:"checksum"`
	RecordType  string `json:"record_type"`
}

type localOptions struct {
	SessionID          string   `json:"session_id"`
	Include            []string `json:"include"`
	Exclude            []string `json:"exclude"`
	FollowPaths        []string `json:"follow_paths"`
	SharedKeyHint      string   `json:"shared_key_hint"`
	Differ             string   `json:"differ"`
	DifferRequired     bool     `json:"differ_required"`
	MetadataOnly       bool     `json:"metadata_only"`
	MetadataOnlyExcept []string `json:"metadata_only_except"`
}

type gitOptions struct {
	Subdir           string   `json:"subdir"`
	KeepGitDir       bool     `json:"keep_git_dir"`
	AuthTokenSecret  *string  `json:"auth_token_secret"`
	AuthHeaderSecret *string  `json:"auth_header_secret"`
	KnownSSHHosts    []string `json:"known_ssh_hosts"`
	SSH              string   `json:"ssh"`
	Checksum         string   `json:"checksum"`
	SkipSubmodules   bool     `json:"skip_submodules"`
	MTime            string   `json:"mtime"`
	FetchByCommit    bool     `json:"fetch_by_commit"`
	Bundle           string   `json:"bundle"`
	BundleSession    string   `json:"bundle_session"`
	BundleStore      string   `json:"bundle_store"`
	CheckoutBundle   bool     `json:"checkout_bundle"`
}

type httpOptions struct {
	Filename         string `json:"filename"`
	Checksum         string `json:"checksum"`
	Chmod            uint32 `json:"chmod"`
	Chown            [2]int `json:"chown"`
	AuthHeaderSecret string `json:"auth_header_secret"`
	Accept           string `json:"accept"`
	UserAgent        string `json:"user_agent"`
	PGPPublicKey     string `json:"pgp_public_key"`
	PGPSignature     string `json:"pgp_signature"`
}

type layoutOptions struct {
	SessionID  string `json:"session_id"`
	StoreID    string `json:"store_id"`
	LayerLimit *int   `json:"layer_limit"`
	// Of blobs.
	Filename string `json:"filename"`
	Chmod    uint32 `json:"chmod"`
	Chown    [2]int `json:"chown"`
}

type ulimit struct {
	Name string `json:"name"`
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

func (p *platform) spec() ocispecs.Platform {
	return ocispecs.Platform{
		OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures,
	}
}

func (c *constraints) options(g *graph) ([]llb.ConstraintsOpt, error) {
	var out []llb.ConstraintsOpt
	if c.Description != nil {
		out = append(out, llb.WithDescription(c.Description))
	}
	if c.Name != "" {
		out = append(out, llb.WithCustomName(c.Name))
	}
	if c.IgnoreCache {
		out = append(out, llb.IgnoreCache)
	}
	if c.ExportCache != nil {
		if *c.ExportCache {
			out = append(out, llb.WithExportCache())
		} else {
			out = append(out, llb.WithoutExportCache())
		}
	}
	if c.Platform != nil {
		out = append(out, llb.Platform(c.Platform.spec()))
	}
	if len(c.Require) > 0 {
		out = append(out, llb.Require(c.Require...))
	}
	if group := c.ProgressGroup; group != nil {
		out = append(out, llb.ProgressGroup(group.ID, group.Name, group.Weak))
	}
	if r := c.Resources; r != nil {
		out = append(out, llb.WithLinuxResources(llb.LinuxResources(*r)))
	}
	for _, place := range c.Locations {
		made, err := g.sourceMap(place.Map)
		if err != nil {
			return nil, err
		}
		var ranges []*pb.Range
		for _, each := range place.Ranges {
			ranges = append(ranges, &pb.Range{
				Start: &pb.Position{Line: each[0], Character: each[2]},
				End:   &pb.Position{Line: each[1], Character: each[3]},
			})
		}
		out = append(out, made.Location(ranges))
	}
	if c.LocalUniqueID != "" {
		out = append(out, llb.LocalUniqueID(c.LocalUniqueID))
	}
	return out, nil
}

func (g *graph) capabilities() []llb.ConstraintsOpt {
	if g.Caps == nil {
		return nil
	}
	var caps []*capspb.APICap
	for _, id := range *g.Caps {
		caps = append(caps, &capspb.APICap{ID: id, Enabled: true})
	}
	return []llb.ConstraintsOpt{llb.WithCaps(pb.Caps.CapSet(caps))}
}

func (g *graph) sourceMap(index int) (*llb.SourceMap, error) {
	m := g.Maps[index]
	if m.made == nil {
		var state *llb.State
		if m.State != nil {
			if *m.State >= len(g.states) {
				return nil, fmt.Errorf("source map %d is of a later state", index)
			}
			state = &g.states[*m.State]
		}
		m.made = llb.NewSourceMap(state, m.Filename, m.Language, m.Data)
	}
	return m.made, nil
}

// build makes all states; the last one is the result.
func (g *graph) build() (llb.State, error) {
	g.execs = map[int]llb.ExecState{}
	g.mounts = map[string]llb.State{}
	// Source maps point into it.
	g.states = make([]llb.State, 0, len(g.Steps))
	for i := range g.Steps {
		state, err := g.state(&g.Steps[i])
		if err != nil {
			return llb.State{}, err
		}
		g.states = append(g.states, state)
	}
	return g.states[len(g.states)-1], nil
}

func (g *graph) state(s *step) (llb.State, error) {
	options, err := s.Constraints.options(g)
	if err != nil {
		return llb.State{}, err
	}
	var base llb.State
	if s.State < len(g.states) {
		base = g.states[s.State]
	}
	var others []llb.State
	for _, each := range s.States {
		others = append(others, g.states[each])
	}
	switch s.Op {
	case "scratch":
		return llb.Scratch(), nil
	case "image":
		return image(s, options), nil
	case "local":
		return local(s, options), nil
	case "git":
		return git(s, options), nil
	case "http":
		return http(s, options), nil
	case "oci_layout", "oci_layout_blob", "image_blob":
		return layout(s, options), nil
	case "run":
		return g.run(s, base, options)
	case "get_mount":
		return g.execs[s.State].GetMount(s.Text), nil
	case "added_mount":
		return g.mounts[fmt.Sprint(s.State, " ", s.Text)], nil
	case "root":
		return g.execs[s.State].Root(), nil
	case "file":
		action, err := g.actions(s.Actions, map[int]llb.CopyInput{})
		if err != nil {
			return llb.State{}, err
		}
		return base.File(action, options...), nil
	case "merge":
		return llb.Merge(others, options...), nil
	case "diff":
		return llb.Diff(others[0], others[1], options...), nil
	case "requires":
		return base.Requires(s.Text, others...), nil
	case "with_image_config":
		return base.WithImageConfig([]byte(s.Text))
	case "state_of":
		// With the constraints of the whole: a source map keeps what it was marshalled to first.
		options, err := g.Marshal.options(g)
		if err != nil {
			return llb.State{}, err
		}
		def, err := base.Marshal(context.Background(), append(options, g.capabilities()...)...)
		if err != nil {
			return llb.State{}, err
		}
		if len(def.Def) == 0 {
			return llb.Scratch(), nil
		}
		op, err := llb.NewDefinitionOp(def.ToPB())
		if err != nil {
			return llb.State{}, err
		}
		return llb.NewState(op), nil
	case "reset":
		return base.Reset(others[0]), nil
	case "add_env":
		return base.AddEnv(s.Text, s.Text2), nil
	case "dir":
		return base.Dir(s.Text), nil
	case "user":
		return base.User(s.Text), nil
	case "hostname":
		return base.Hostname(s.Text), nil
	case "platform":
		return base.Platform(s.Platform.spec()), nil
	case "network":
		return base.Network(netModes[s.Text]), nil
	case "security":
		return base.Security(securityModes[s.Text]), nil
	case "add_extra_host":
		return base.AddExtraHost(s.Text, net.ParseIP(s.Text2)), nil
	case "add_ulimit":
		return base.AddUlimit(llb.UlimitName(s.Ulimit.Name), s.Ulimit.Soft, s.Ulimit.Hard), nil
	case "cgroup_parent":
		return base.WithCgroupParent(s.Text), nil
	}
	return llb.State{}, fmt.Errorf("unknown op %q", s.Op)
}

func image(s *step, options []llb.ConstraintsOpt) llb.State {
	var out []llb.ImageOption
	for _, each := range options {
		out = append(out, each)
	}
	if o := s.Image; o != nil {
		modes := map[string]llb.ResolveMode{
			"default": llb.ResolveModeDefault, "pull": llb.ResolveModeForcePull, "local": llb.ResolveModePreferLocal,
		}
		if o.ResolveMode != "" {
			out = append(out, modes[o.ResolveMode])
		}
		if o.LayerLimit != nil {
			out = append(out, llb.WithLayerLimit(*o.LayerLimit))
		}
		if o.Checksum != "" {
			out = append(out, llb.WithImageChecksum(digest.Digest(o.Checksum)))
		}
		if o.RecordType == "internal" {
			out = append(out, llb.MarkImageInternal)
		}
	}
	return llb.Image(s.Text, out...)
}

func local(s *step, options []llb.ConstraintsOpt) llb.State {
	var out []llb.LocalOption
	for _, each := range options {
		out = append(out, each)
	}
	if o := s.Local; o != nil {
		if o.SessionID != "" {
			out = append(out, llb.SessionID(o.SessionID))
		}
		if o.Include != nil {
			out = append(out, llb.IncludePatterns(o.Include))
		}
		if o.Exclude != nil {
			out = append(out, llb.ExcludePatterns(o.Exclude))
		}
		if o.FollowPaths != nil {
			out = append(out, llb.FollowPaths(o.FollowPaths))
		}
		if o.SharedKeyHint != "" {
			out = append(out, llb.SharedKeyHint(o.SharedKeyHint))
		}
		if o.Differ != "" {
			out = append(out, llb.Differ(llb.DiffType(o.Differ), o.DifferRequired))
		}
		if o.MetadataOnly {
			out = append(out, llb.MetadataOnlyTransfer(o.MetadataOnlyExcept))
		}
	}
	return llb.Local(s.Text, out...)
}

func git(s *step, options []llb.ConstraintsOpt) llb.State {
	var out []llb.GitOption
	for _, each := range options {
		out = append(out, each)
	}
	// Text2 is the ref.
	if s.Text2 != "" {
		out = append(out, llb.GitRef(s.Text2))
	}
	if o := s.Git; o != nil {
		if o.Subdir != "" {
			out = append(out, llb.GitSubDir(o.Subdir))
		}
		if o.KeepGitDir {
			out = append(out, llb.KeepGitDir())
		}
		if o.AuthTokenSecret != nil {
			out = append(out, llb.AuthTokenSecret(*o.AuthTokenSecret))
		}
		if o.AuthHeaderSecret != nil {
			out = append(out, llb.AuthHeaderSecret(*o.AuthHeaderSecret))
		}
		for _, key := range o.KnownSSHHosts {
			out = append(out, llb.KnownSSHHosts(key))
		}
		if o.SSH != "" {
			out = append(out, llb.MountSSHSock(o.SSH))
		}
		if o.Checksum != "" {
			out = append(out, llb.GitChecksum(o.Checksum))
		}
		if o.SkipSubmodules {
			out = append(out, llb.GitSkipSubmodules())
		}
		if o.MTime != "" {
			out = append(out, llb.GitMTime(o.MTime))
		}
		if o.FetchByCommit {
			out = append(out, llb.GitFetchByCommit())
		}
		if o.Bundle != "" {
			out = append(out, llb.GitBundleURL(o.Bundle, llb.GitBundleOCIStore(o.BundleSession, o.BundleStore)))
		}
		if o.CheckoutBundle {
			out = append(out, llb.GitCheckoutBundle())
		}
	}
	return llb.Git(s.Text, "", out...)
}

func http(s *step, options []llb.ConstraintsOpt) llb.State {
	var out []llb.HTTPOption
	for _, each := range options {
		out = append(out, each)
	}
	if o := s.HTTP; o != nil {
		if o.Filename != "" {
			out = append(out, llb.Filename(o.Filename))
		}
		if o.Checksum != "" {
			out = append(out, llb.Checksum(digest.Digest(o.Checksum)))
		}
		if o.Chmod != 0 {
			out = append(out, llb.Chmod(os.FileMode(o.Chmod)))
		}
		if o.Chown != [2]int{} {
			out = append(out, llb.Chown(o.Chown[0], o.Chown[1]))
		}
		if o.AuthHeaderSecret != "" {
			out = append(out, llb.AuthHeaderSecret(o.AuthHeaderSecret))
		}
		if o.Accept != "" || o.UserAgent != "" {
			out = append(out, llb.Header(llb.HTTPHeader{Accept: o.Accept, UserAgent: o.UserAgent}))
		}
		if o.PGPPublicKey != "" || o.PGPSignature != "" {
			out = append(out, llb.VerifyPGPSignature(llb.HTTPSignatureInfo{
				PubKey: []byte(o.PGPPublicKey), Signature: []byte(o.PGPSignature),
			}))
		}
	}
	return llb.HTTP(s.Text, out...)
}

func layout(s *step, options []llb.ConstraintsOpt) llb.State {
	o := s.Layout
	if o == nil {
		o = &layoutOptions{}
	}
	if s.Op == "oci_layout" {
		var out []llb.OCILayoutOption
		for _, each := range options {
			out = append(out, each)
		}
		if o.SessionID != "" || o.StoreID != "" {
			out = append(out, llb.OCIStore(o.SessionID, o.StoreID))
		}
		if o.LayerLimit != nil {
			out = append(out, llb.OCILayerLimit(*o.LayerLimit))
		}
		return llb.OCILayout(s.Text, out...)
	}
	var out []llb.ImageBlobOption
	for _, each := range options {
		out = append(out, each)
	}
	if o.Filename != "" {
		out = append(out, llb.Filename(o.Filename))
	}
	if o.Chmod != 0 {
		out = append(out, llb.Chmod(os.FileMode(o.Chmod)))
	}
	if o.Chown != [2]int{} {
		out = append(out, llb.Chown(o.Chown[0], o.Chown[1]))
	}
	if s.Op == "image_blob" {
		return llb.ImageBlob(s.Text, out...)
	}
	if o.SessionID != "" || o.StoreID != "" {
		out = append(out, llb.ImageBlobOCIStore(o.SessionID, o.StoreID))
	}
	return llb.OCILayoutBlob(s.Text, out...)
}

// ---- files

type action struct {
	Kind    string  `json:"kind"`
	Path    string  `json:"path"`
	Path2   string  `json:"path2"`
	Mode    *int64  `json:"mode"`
	ModeStr string  `json:"mode_str"`
	Data    []byte  `json:"data"`
	Chown   *string `json:"chown"`
	// UserID, UserName, GroupID, GroupName: an owner that is not read from text.
	Owner   *owner `json:"owner"`
	Created *int64 `json:"created"`

	Parents       bool `json:"parents"`
	AllowNotFound bool `json:"allow_not_found"`
	Wildcard      bool `json:"wildcard"`

	// From is a state; Bound a chain of actions on it, and Again the number of an earlier one of these.
	From  int      `json:"from"`
	Bound []action `json:"bound"`
	Mark  int      `json:"mark"`
	Again int      `json:"again"`

	FollowSymlinks     bool     `json:"follow_symlinks"`
	ContentsOnly       bool     `json:"contents_only"`
	CreateDestPath     bool     `json:"create_dest_path"`
	AllowEmptyWildcard bool     `json:"allow_empty_wildcard"`
	Include            []string `json:"include"`
	Exclude            []string `json:"exclude"`
	Required           []string `json:"required"`
	Unpack             bool     `json:"unpack"`
	ReplaceExisting    bool     `json:"replace_existing"`
}

type owner struct {
	UserID    *int   `json:"user_id"`
	UserName  string `json:"user_name"`
	GroupID   *int   `json:"group_id"`
	GroupName string `json:"group_name"`
}

func (o *owner) option() *llb.ChownOpt {
	pick := func(id *int, name string) *llb.UserOpt {
		if name != "" {
			return &llb.UserOpt{Name: name}
		}
		if id != nil {
			return &llb.UserOpt{UID: *id}
		}
		return nil
	}
	return &llb.ChownOpt{User: pick(o.UserID, o.UserName), Group: pick(o.GroupID, o.GroupName)}
}

func (a *action) chown() *llb.ChownOpt {
	if a.Owner != nil {
		return a.Owner.option()
	}
	if a.Chown == nil {
		return nil
	}
	option, ok := llb.WithUser(*a.Chown).(llb.ChownOpt)
	if !ok {
		panic("WithUser does not give a ChownOpt")
	}
	return &option
}

func (a *action) created() *time.Time {
	if a.Created == nil {
		return nil
	}
	t := time.Unix(0, *a.Created)
	return &t
}

func (g *graph) actions(list []action, bound map[int]llb.CopyInput) (*llb.FileAction, error) {
	var chain *llb.FileAction
	for i := range list {
		a := &list[i]
		mode := os.FileMode(0)
		if a.Mode != nil {
			mode = os.FileMode(*a.Mode)
		}
		switch a.Kind {
		case "mkdir":
			info := &llb.MkdirInfo{MakeParents: a.Parents, ChownOpt: a.chown(), CreatedTime: a.created()}
			chain = chain.Mkdir(a.Path, mode, info)
		case "mkfile":
			chain = chain.Mkfile(a.Path, mode, a.Data, &llb.MkfileInfo{ChownOpt: a.chown(), CreatedTime: a.created()})
		case "symlink":
			chain = chain.Symlink(a.Path, a.Path2, &llb.SymlinkInfo{ChownOpt: a.chown(), CreatedTime: a.created()})
		case "rm":
			chain = chain.Rm(a.Path, &llb.RmInfo{AllowNotFound: a.AllowNotFound, AllowWildcard: a.Wildcard})
		case "copy":
			info := &llb.CopyInfo{
				FollowSymlinks: a.FollowSymlinks, CopyDirContentsOnly: a.ContentsOnly, IncludePatterns: a.Include,
				ExcludePatterns: a.Exclude, RequiredPaths: a.Required, AttemptUnpack: a.Unpack,
				CreateDestPath: a.CreateDestPath, AllowWildcard: a.Wildcard, AllowEmptyWildcard: a.AllowEmptyWildcard,
				ChownOpt: a.chown(), CreatedTime: a.created(), AlwaysReplaceExistingDestPaths: a.ReplaceExisting,
			}
			if a.ModeStr != "" {
				info.Mode = &llb.ChmodOpt{ModeStr: a.ModeStr}
			} else if a.Mode != nil {
				info.Mode = &llb.ChmodOpt{Mode: mode}
			}
			var source llb.CopyInput = g.states[a.From]
			if a.Again != 0 {
				source = bound[a.Again]
			} else if a.Bound != nil {
				inner, err := g.actions(a.Bound, bound)
				if err != nil {
					return nil, err
				}
				source = inner.WithState(g.states[a.From])
				bound[a.Mark] = source
			}
			chain = chain.Copy(source, a.Path, a.Path2, info)
		default:
			return nil, fmt.Errorf("unknown action %q", a.Kind)
		}
	}
	return chain, nil
}

var netModes = map[string]pb.NetMode{
	"sandbox": llb.NetModeSandbox, "host": llb.NetModeHost, "none": llb.NetModeNone,
}

var securityModes = map[string]pb.SecurityMode{
	"sandbox": llb.SecurityModeSandbox, "insecure": llb.SecurityModeInsecure,
}
