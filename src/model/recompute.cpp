#include "model/recompute.h"

#include <utility>

#include "model/autocast.h"

namespace mha2mla::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Recipe : torch::CustomClassHolder {
    std::function<torch::Tensor(const torch::Tensor&)> f;
    bool autocast = false;
};

struct Recomputed : torch::autograd::Function<Recomputed> {
    static torch::Tensor forward(AutogradContext* context, const torch::Tensor& x,
                                 const c10::intrusive_ptr<Recipe>& recipe) {
        context->save_for_backward({x});
        context->saved_data["recipe"] = c10::IValue::make_capsule(recipe);
        return recipe->f(x);  // without gradients: those of a Function's own steps are not recorded
    }
    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        const auto recipe = c10::static_intrusive_pointer_cast<Recipe>(context->saved_data["recipe"].toCapsule());
        const torch::AutoGradMode with_gradients(true);
        const auto x = context->get_saved_variables()[0].detach().requires_grad_();
        const auto y = [&] {
            const Autocast autocast(x.device(), recipe->autocast);
            return recipe->f(x);
        }();
        torch::autograd::backward({y}, {gradients[0]});
        return {x.grad(), {}};
    }
};

}  // namespace

torch::Tensor recomputed(std::function<torch::Tensor(const torch::Tensor& x)> f, const torch::Tensor& x) {
    auto recipe = c10::make_intrusive<Recipe>();
    recipe->f = std::move(f);
    recipe->autocast = at::autocast::is_autocast_enabled(x.device().type());
    // The backward pass gets here only where the input asks for a gradient.
    return Recomputed::apply(x.requires_grad() ? x : x.detach().requires_grad_(), recipe);
}

}  // namespace mha2mla::model
