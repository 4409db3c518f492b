// The arrays that a Plan makes: states, with units and remainders, and averages.
#include <algorithm>
#include <optional>
#include <utility>

#include "python/plan.hpp"
#include "python/state_storage.hpp"
#include "runtime/levels.hpp"

namespace instep {

namespace {

const char* const eight_bits = "8bit";

// How a group's states are to be stored, as Python says it: None, a dtype or "8bit" for all, or a dict with one of
// these for each state that is named.
struct Wanted {
    py::object value;
    bool is_named;

    static Wanted of(const py::object& state_dtypes, const char* state) {
        if (!py::isinstance<py::dict>(state_dtypes)) return {state_dtypes, false};
        const py::dict by_name = state_dtypes;
        if (!by_name.contains(state)) return {py::none(), false};
        return {by_name[state], true};
    }
    bool is_eight_bits() const { return py::isinstance<py::str>(value); }
};

[[noreturn]] void refuse(const std::string& expected, const std::string& found) {
    throw py::value_error(refusal("state_dtype", expected, found));
}

// The format of a state; throws ValueError if it can't be stored as wanted.
Format format_of(const Wanted& wanted, const StateName& state, Format compute, bool is_small, const std::string& who) {
    if (wanted.value.is_none()) return compute;
    const std::string why = std::string(" for the state '") + state.name + "' of " + who;
    const std::string found = wanted.is_eight_bits() ? std::string("'") + eight_bits + "'"
                                                     : format_name(format_of_dtype(wanted.value, "state_dtype"));
    // Of centered RMSprop.
    const std::string wide = std::string("be None or ") + format_name(compute) + why +
                             ", as the rule takes a difference of states, which vanishes in the rounding";
    if (state.kind.narrow == Narrow::iterate) {
        if (wanted.is_named) refuse("be None" + why + ", which is as exact as the parameter", found);
        return compute;
    }
    if (wanted.is_eight_bits()) {
        if (state.kind.narrow == Narrow::none) refuse(wide, found);
        if (!state.kind.eight_bits) return compute;
        if (compute == Format::float64)
            refuse("be None or a dtype" + why + ", as 8 bits are for arithmetic in float32, and " + who +
                       " is computed in float64",
                   found);
        if (is_small) return compute;
        return state.kind.is_signed ? Format::signed8 : Format::unsigned8;
    }
    const Format format = format_of_dtype(wanted.value, "state_dtype");
    if (format == compute) return format;
    if (state.kind.narrow == Narrow::none) refuse(wide, found);
    if (state.kind.narrow == Narrow::bfloat16 && format == Format::float16)
        refuse(std::string("be None, ") + format_name(compute) + " or bfloat16" + why, found);
    return state.kind.root && format == Format::float16 ? Format::root16 : format;
}

void require_no_wider(const py::object& wanted, Format compute, const std::string& who) {
    if (wanted.is_none() || py::isinstance<py::str>(wanted)) return;
    const Format format = format_of_dtype(wanted, "state_dtype");
    if (item_size(format) > item_size(compute))
        refuse(std::string("be ") + format_name(compute) + ", in which " + who + " is computed, or narrower",
               format_name(format));
}

}  // namespace

// The properties of a parameter that decide how its arrays are made.
struct Plan::Like {
    Extents shape;
    Axes order;
    Format parameter, compute;
    Format states[max_states];
    std::int64_t size;

    ArrayLike array(Format format) const { return {shape, order, format}; }
    ArrayLike units() const { return {{code_blocks(size)}, {0}, Format::float32}; }
};

// The parameter must be one that can be stepped.
Plan::Like Plan::like(const Binding& binding, const Variant& variant, const py::object& state_dtypes) const {
    const std::string who = "parameter '" + binding.name + "'";
    require_unmasked(binding.parameter.ptr(), who);
    const Look look(binding.parameter.ptr(), who);
    const TensorView& view = look.view();
    require_parameter(view, who, binding.read_only, use_a_copy);
    Like like{{view.shape, view.shape + view.ndim},
              memory_order({view.shape, view.shape + view.ndim}, {view.strides, view.strides + view.ndim}),
              view.format,
              view.format == Format::float64 ? Format::float64 : Format::float32,
              {},
              view.size()};
    if (!py::isinstance<py::dict>(state_dtypes)) require_no_wider(state_dtypes, like.compute, who);
    const bool is_small = (binding.stretch ? binding.stretch->size() : like.size) < stored_.min_8bit_size;
    bool by_element = stored_.rounding.parameters && item_size(view.format) == 2;
    for (int k = 0; k < variant.state_count; ++k) {
        const StateName& state = variant.states[k];
        if (!state.used) continue;
        const Wanted wanted = Wanted::of(state_dtypes, state.name);
        if (wanted.is_named) require_no_wider(wanted.value, like.compute, who);
        like.states[k] = format_of(wanted, state, like.compute, is_small, who);
        by_element = by_element || Steps::goes_by_element(state.kind, like.states[k], stored_.rounding);
    }
    if (by_element) like.order = logical_order(view.ndim);
    return like;
}

// New arrays of zeros side by side. With a name, they lie in a file if states do.
std::vector<py::object> Plan::make_arrays(int place, const std::string& name,
                                          const std::vector<std::optional<ArrayLike>>& likes) {
    std::int64_t bytes = 0;
    for (const auto& like : likes)
        if (like) bytes += Room::rounded(like->bytes());
    const bool in_file = !name.empty() && !storage_.is_none() && bytes > 0;
    Room room = in_file ? room_in_file(storage_, name, bytes, *steps_.stepper().windows()) : Room(bytes, place);
    std::vector<py::object> arrays;
    for (const auto& like : likes)
        arrays.push_back(like ? py::object(room.take(like->shape, like->order, like->format)) : py::object(py::none()));
    return arrays;
}

// Makes states and averages for the parameters, and binds all arrays.
void Plan::bind_all(const std::vector<Binding>& bindings, std::size_t first_group,
                    const std::vector<py::object>& state_dtypes) {
    std::vector<Like> parameters;
    for (const Binding& binding : bindings) {
        const auto group = static_cast<std::size_t>(binding.group);
        parameters.push_back(
            like(binding, variant_of(steps_.hyperparameters().groups[group]), state_dtypes[group - first_group]));
    }
    std::vector<Binding> whole = bindings;
    for (Binding& binding : whole) binding.states = py::dict();
    for (int k = 0; k < max_states; ++k) make_states(k, parameters, whole);
    make_scalar_states(whole);
    std::vector<std::optional<ArrayLike>> likes(bindings.size());
    if (averaged_) {
        for (std::size_t i = 0; i < likes.size(); ++i) likes[i] = parameters[i].array(parameters[i].compute);
        const std::vector<py::object> made = make_arrays(1 + max_states, "average", likes);
        for (std::size_t i = 0; i < likes.size(); ++i) whole[i].average = made[i];
    }
    if (stored_.master_bits != 0) {
        const Format rest = stored_.master_bits == 24 ? Format::signed8 : Format::rest16;
        for (std::size_t i = 0; i < likes.size(); ++i) {
            likes[i].reset();
            if (parameters[i].parameter == Format::bfloat16) likes[i] = parameters[i].array(rest);
        }
        const std::vector<py::object> made = make_arrays(5 + 2 * max_states, remainder_name, likes);
        for (std::size_t i = 0; i < likes.size(); ++i)
            if (likes[i]) whole[i].states[remainder_name] = made[i];
    }
    const std::size_t first = steps_.count();
    steps_.append(whole.size());
    for (std::size_t i = 0; i < whole.size(); ++i) steps_.bind(first + i, whole[i]);
    steps_.arrange();
}

// Makes state k of all parameters, and its units.
void Plan::make_states(int k, const std::vector<Like>& parameters, std::vector<Binding>& bindings) {
    std::vector<std::optional<ArrayLike>> states(bindings.size());
    std::vector<std::optional<ArrayLike>> units(bindings.size());
    std::string name;  // of the first that has one: the file's
    bool any_units = false;
    const auto state = [&](std::size_t i) {
        return variant_of(steps_.hyperparameters().groups[static_cast<std::size_t>(bindings[i].group)]).states[k];
    };
    for (std::size_t i = 0; i < bindings.size(); ++i) {
        if (!state(i).used) continue;
        if (name.empty()) name = state(i).name;
        states[i] = parameters[i].array(parameters[i].states[k]);
        if (!is_coded(parameters[i].states[k])) continue;
        units[i] = parameters[i].units();
        any_units = true;
    }
    const std::vector<py::object> made = make_arrays(1 + k, name, states);
    const std::vector<py::object> made_units =
        any_units ? make_arrays(5 + max_states + k, unit_name(name), units) : std::vector<py::object>();
    for (std::size_t i = 0; i < bindings.size(); ++i) {
        if (states[i]) bindings[i].states[state(i).name] = made[i];
        if (units[i]) bindings[i].states[py::str(unit_name(state(i).name))] = made_units[i];
    }
}

// Makes the states that are one number. All parameters of a joint rule have one array, which may be there already.
void Plan::make_scalar_states(std::vector<Binding>& bindings) {
    const auto variant = [this](const Binding& binding) -> const Variant& {
        return variant_of(steps_.hyperparameters().groups[static_cast<std::size_t>(binding.group)]);
    };
    const bool joint = !bindings.empty() && variant(bindings.front()).joint;
    const std::size_t first = joint ? steps_.first_joint() : steps_.count();
    std::vector<std::optional<ArrayLike>> likes(joint ? 1 : bindings.size());
    for (int k = 0; k < max_scalar_states; ++k) {
        const auto state = [&](std::size_t i) { return variant(bindings[i]).scalar_states[k]; };
        for (std::size_t i = 0; i < likes.size(); ++i) {
            likes[i].reset();
            if (state(i).used) likes[i] = ArrayLike{{}, {}, Format::float64};
        }
        if (std::none_of(likes.begin(), likes.end(), [](const auto& like) { return like.has_value(); })) continue;
        const std::vector<py::object> made = first < steps_.count()
                                                 ? std::vector<py::object>{steps_.bound(first).states[state(0).name]}
                                                 : make_arrays(3 + max_states, "", likes);
        for (std::size_t i = 0; i < bindings.size(); ++i)
            if (state(i).used) bindings[i].states[state(i).name] = made[joint ? 0 : i];
    }
}

}  // namespace instep
