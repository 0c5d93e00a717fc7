package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// setScalar reads text into v; a message says what is wrong with it.
func setScalar(v reflect.Value, text string) (message, hint string) {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText([]byte(text)); err != nil {
			return err.Error(), hintOf(err)
		}
		return "", ""
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
		return "", ""
	case reflect.Bool:
		b, ok := map[string]bool{"true": true, "false": false}[strings.ToLower(text)]
		if !ok {
			return fmt.Sprintf("%.40q is neither true nor false", text), boolHint(text)
		}
		v.SetBool(b)
		return "", ""
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(text, v.Type().Bits())
		if err != nil || f != f {
			return fmt.Sprintf("%.40q is not a number", text), ""
		}
		v.SetFloat(f)
		return "", ""
	}
	if v.CanInt() {
		i, err := strconv.ParseInt(text, 10, v.Type().Bits())
		v.SetInt(i)
		return intMessage(text, err), ""
	}
	u, err := strconv.ParseUint(text, 10, v.Type().Bits())
	v.SetUint(u)
	return intMessage(text, err), ""
}

func intMessage(text string, err error) string {
	switch {
	case err == nil:
		return ""
	case strings.Contains(err.Error(), "range"):
		return fmt.Sprintf("%.40s is out of range", text)
	}
	return fmt.Sprintf("%.40q is not a whole number", text)
}

func boolHint(text string) string {
	switch strings.ToLower(text) {
	case "yes", "on", "1", "y":
		return "write true"
	case "no", "off", "0", "n":
		return "write false"
	}
	return ""
}

// hintOf finds the hint that an error carries.
func hintOf(err error) string {
	if h, ok := err.(interface{ Hint() string }); ok {
		return h.Hint()
	}
	return ""
}
