// Package config reads a program's configuration: a YAML file, environment
// variables and flags, laid over a struct that holds the defaults.
//
// It promises to report every violation at once, each with the place it comes
// from, the key and, where one is near, what was probably meant; unknown and
// repeated keys are violations. It holds no configuration of its own, watches
// nothing for changes, and never reads a secret: those are named by file.
package config

import (
	"fmt"
	"os"
	"reflect"
	"strings"
)

// maxFileBytes bounds a configuration file; a larger one is a mistake.
const maxFileBytes = 1 << 20

// Source says where a configuration comes from. What comes later in the fields
// wins: the file over the defaults, the environment over the file, Set over
// all.
type Source struct {
	Path      string     // a YAML file; empty for none
	EnvPrefix string     // "PACKETBOAT_EDGE"; empty for no environment
	Environ   []string   // as os.Environ gives it
	Set       []Override // from flags, in order
}

// Override is the value of one key from the command line.
type Override struct {
	Key   string // "hub.urls"
	Value string // as in an environment variable
	From  string // "--hub", for messages
}

// Checker is a struct, at any depth of a configuration, that has rules beyond
// the types of its fields. Check runs after everything is read, also when
// there are violations already; a second violation of one key is dropped. It
// does not run when the file is missing or is no YAML.
type Checker interface{ Check(*Report) }

// Load reads what s names into *into, which must be a pointer to a struct that
// holds the defaults. The error, if any, is an *Errors with all violations.
// It panics when the struct has a field of a kind that it cannot read.
func (s Source) Load(into any) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("config: %T is not a pointer to a struct", into))
	}
	v = v.Elem()
	checkShape(v.Type())
	r := newReader(s)
	read := r.file(v)
	r.environ(v)
	r.overrides(v)
	if read { // else what is missing may stand in the file
		r.check(v, "")
	}
	return r.errs.orNil()
}

// file reads the YAML file into v, and reports whether it could be read at all.
func (r *reader) file(v reflect.Value) bool {
	if r.src.Path == "" {
		return true
	}
	data, err := readFile(r.src.Path)
	if err != nil {
		r.add(origin{file: r.src.Path}, "", err.Error(), "")
		return false
	}
	root, bad := parse(data)
	if bad != nil {
		bad.File = r.src.Path
		r.errs.add(*bad)
		return false
	}
	if root != nil {
		r.walk(root, v, "", func(line, column int) origin {
			return origin{file: r.src.Path, line: line, column: column}
		})
	}
	return true
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot be read: %w", pathless(err))
	case info.IsDir():
		return nil, fmt.Errorf("is a directory, not a configuration file")
	case info.Size() > maxFileBytes:
		return nil, fmt.Errorf("has %d bytes; a configuration has at most %d", info.Size(), maxFileBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", pathless(err))
	}
	return data, nil
}

// pathless drops operation and path of a file error, which the message names
// already.
func pathless(err error) error {
	if pe, ok := err.(*os.PathError); ok {
		return pe.Err
	}
	return err
}

// environ lays the environment variables over v.
func (r *reader) environ(v reflect.Value) {
	if r.src.EnvPrefix == "" {
		return
	}
	keys := map[string]string{} // variable to key
	names := []string{}
	for _, k := range keysOf(v.Type(), "") {
		name := EnvName(r.src.EnvPrefix, k.path)
		keys[name] = k.path
		names = append(names, name)
	}
	for _, e := range r.src.Environ {
		name, value, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, r.src.EnvPrefix+"_") || isServiceLink(name[len(r.src.EnvPrefix)+1:]) {
			continue
		}
		key, ok := keys[name]
		if !ok {
			r.add(origin{env: name}, "", "no key has this environment variable", didYouMean(name, names))
			continue
		}
		r.set(v, key, value, origin{env: name})
	}
}

// isServiceLink knows the variables that Kubernetes sets in every container for
// a service that is called like the program.
func isServiceLink(rest string) bool {
	return rest == "PORT" || strings.HasPrefix(rest, "PORT_") ||
		rest == "SERVICE_HOST" || rest == "SERVICE_PORT" || strings.HasPrefix(rest, "SERVICE_PORT_")
}

// overrides lays the flags over v.
func (r *reader) overrides(v reflect.Value) {
	for _, o := range r.src.Set {
		r.set(v, o.Key, o.Value, origin{flag: o.From})
	}
}

// EnvName gives the environment variable of a key: EnvName("PACKETBOAT_EDGE",
// "buffer.max_bytes") is PACKETBOAT_EDGE_BUFFER_MAX_BYTES.
func EnvName(prefix, key string) string {
	return prefix + "_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}
