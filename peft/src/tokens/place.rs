//! Where prompts go in a tower's token stream.

use burn::tensor::Tensor;
use inarch_core::backbone::Pass;

/// Puts `prompt` `[n, width]` at the first words of every row of a text stream `[rows, tokens, width]`, after the start token.
pub(super) fn into_text(tokens: Tensor<3>, prompt: Tensor<2>, pass: &Pass<'_>) -> Tensor<3> {
    let [count, width] = prompt.dims();
    let [rows, _, _] = tokens.dims();
    each_into_text(tokens, prompt.unsqueeze::<3>().expand([rows, count, width]), pass)
}

/// As [`into_text`], with a prompt for each row, `[rows, n, width]`.
pub(super) fn each_into_text(tokens: Tensor<3>, prompts: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
    let ([_, length, _], [_, count, _]) = (tokens.dims(), prompts.dims());
    let first = pass.first;
    let rest = tokens.clone().narrow(1, first + count, length - first - count);
    match first {
        0 => Tensor::cat(vec![prompts, rest], 1),
        _ => Tensor::cat(vec![tokens.narrow(1, 0, first), prompts, rest], 1),
    }
}

/// Puts `prompt` `[n, width]` behind the patches of an image stream `[rows, tokens, width]`; in a later block than the
/// first, in place of the prompt there.
pub(super) fn behind_patches(block: usize, tokens: Tensor<3>, prompt: Tensor<2>) -> Tensor<3> {
    let ([rows, _, width], [count, _]) = (tokens.dims(), prompt.dims());
    each_behind_patches(block, tokens, prompt.unsqueeze::<3>().expand([rows, count, width]))
}

/// As [`behind_patches`], with a prompt for each row, `[rows, n, width]`.
pub(super) fn each_behind_patches(block: usize, tokens: Tensor<3>, prompts: Tensor<3>) -> Tensor<3> {
    let ([_, length, _], [_, count, _]) = (tokens.dims(), prompts.dims());
    let kept = if block == 0 { length } else { length - count };
    Tensor::cat(vec![tokens.narrow(1, 0, kept), prompts], 1)
}
