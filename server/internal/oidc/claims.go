package oidc

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// maxDepth is how far objects within claims are followed.
const maxDepth = 4

// Claims are a token's claims as text: numbers as they were written, true and
// false as such, the elements of a list each by itself. A member of an object
// is named OBJECT/MEMBER, as in kubernetes.io/serviceaccount/name.
type Claims map[string][]string

// Claims returns the token's claims. It decodes them anew each time.
func (i *Identity) Claims() Claims {
	claims, _ := ParseClaims(i.payload) // they were decoded before
	return claims
}

// ParseClaims reads the JSON object of a token's payload.
func ParseClaims(payload []byte) (Claims, error) {
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.UseNumber() // 1e3 is not 1000 in an id, and large ids are no floats
	var members map[string]any
	if err := decoder.Decode(&members); err != nil {
		return nil, err
	}
	claims := Claims{}
	claims.add("", members, 0)
	return claims, nil
}

// add flattens an object. The members of an object come after what stands
// beside it, so that a claim whose own name has a slash is what it says.
func (c Claims) add(prefix string, members map[string]any, depth int) {
	inner := map[string]map[string]any{}
	for name, value := range members {
		name = prefix + name
		if object, ok := value.(map[string]any); ok {
			inner[name+"/"] = object
		} else if _, there := c[name]; !there {
			if values := texts(value); values != nil {
				c[name] = values
			}
		}
	}
	if depth+1 < maxDepth {
		for name, object := range inner {
			c.add(name, object, depth+1)
		}
	}
}

// texts is nil for what is not text.
func texts(value any) []string {
	switch value := value.(type) {
	case string:
		return []string{value}
	case bool:
		return []string{strconv.FormatBool(value)}
	case json.Number:
		return []string{value.String()}
	case []any:
		values := []string{}
		for _, element := range value {
			if _, list := element.([]any); !list {
				values = append(values, texts(element)...)
			}
		}
		return values
	}
	return nil
}
