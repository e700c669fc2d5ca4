//! The fused operations with gradients.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::ops::{TowerGradients, TowerOps};

type Tracked<B, C> = FloatTensor<Autodiff<B, C>>;

#[derive(Debug)]
struct Attention;

impl<B: TowerGradients> Backward<B, 3> for Attention {
    type State = ([NodeId; 3], usize, bool);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (inputs, heads, causal) = ops.state;
        let inputs = inputs.map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id));
        let gradients = B::attention_gradients(inputs, gradient, heads, causal);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct LayerNorm;

impl<B: TowerGradients> Backward<B, 1> for LayerNorm {
    type State = (NodeId, FloatTensor<B>, f64);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (input, gain, epsilon) = ops.state;
        let input = checkpointer.retrieve_node_output::<FloatTensor<B>>(input);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::layer_norm_gradient(input, gain, gradient, epsilon));
        }
    }
}

#[derive(Debug)]
struct QuickGelu;

impl<B: TowerGradients> Backward<B, 1> for QuickGelu {
    type State = NodeId;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let input = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::quick_gelu_gradient(input, gradient));
        }
    }
}

#[derive(Debug)]
struct Linear;

impl<B: TowerGradients> Backward<B, 1> for Linear {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::linear_gradient(ops.state, gradient));
        }
    }
}

impl<B: TowerGradients, C: CheckpointStrategy> TowerOps for Autodiff<B, C> {
    fn tower_attention(
        query: Tracked<B, C>,
        key: Tracked<B, C>,
        value: Tracked<B, C>,
        heads: usize,
        causal: bool,
    ) -> Tracked<B, C> {
        let inputs = [query, key, value];
        let prepared = Attention.prepare::<C>(inputs.each_ref().map(|input| input.node())).compute_bound().stateful();
        let run = |[query, key, value]: [Tracked<B, C>; 3]| {
            let [query, key, value] = [query, key, value].map(|input| input.into_primitive());
            B::tower_attention(query, key, value, heads, causal)
        };
        match prepared {
            OpsKind::Tracked(mut prepared) => {
                let state = inputs.each_ref().map(|input| prepared.checkpoint(input));
                prepared.finish((state, heads, causal), run(inputs))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(run(inputs)),
        }
    }

    fn tower_layer_norm(
        input: Tracked<B, C>,
        gain: Tracked<B, C>,
        shift: Tracked<B, C>,
        epsilon: f64,
    ) -> Tracked<B, C> {
        let (gain, shift) = (gain.into_primitive(), shift.into_primitive());
        match LayerNorm.prepare::<C>([input.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prepared) => {
                let state = (prepared.checkpoint(&input), gain.clone(), epsilon);
                prepared.finish(state, B::tower_layer_norm(input.into_primitive(), gain, shift, epsilon))
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::tower_layer_norm(input.into_primitive(), gain, shift, epsilon))
            }
        }
    }

    fn tower_quick_gelu(input: Tracked<B, C>) -> Tracked<B, C> {
        match QuickGelu.prepare::<C>([input.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prepared) => {
                let state = prepared.checkpoint(&input);
                prepared.finish(state, B::tower_quick_gelu(input.into_primitive()))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::tower_quick_gelu(input.into_primitive())),
        }
    }
    fn tower_linear(input: Tracked<B, C>, weight: Tracked<B, C>, bias: Tracked<B, C>) -> Tracked<B, C> {
        let (weight, bias) = (weight.into_primitive(), bias.into_primitive());
        match Linear.prepare::<C>([input.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                prepared.finish(weight.clone(), B::tower_linear(input.into_primitive(), weight, bias))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::tower_linear(input.into_primitive(), weight, bias)),
        }
    }
}
